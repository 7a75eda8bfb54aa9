package lock

// Auth says how to log in where a file lies. It is kept in the lock, so it
// names secrets and holds none. A path is relative to the project's folder;
// "$NAME" stands for the value of an environment variable when the file is
// fetched (of DNF_VAR_NAME where that is set), in a Secret as the secret
// itself, in other texts as what is to stand there.
type Auth struct {
	TLS    *AuthTLS    `json:"tls,omitempty" yaml:"tls"`
	Basic  *AuthBasic  `json:"basic,omitempty" yaml:"basic"`
	Bearer *AuthBearer `json:"bearer,omitempty" yaml:"bearer"`
	// OfflineToken is Red Hat's way to a download.
	OfflineToken *AuthOfflineToken `json:"offlineToken,omitempty" yaml:"offlineToken"`
	// Proxy is the address of an HTTP proxy; "_none_" for none at all.
	Proxy string `json:"proxy,omitempty" yaml:"proxy"`
}

// Secret is "$NAME", an environment variable, or the path of a file whose
// first line is the secret.
type Secret string

// AuthTLS is a client certificate, and whom to trust: PEM files.
type AuthTLS struct {
	Cert string `json:"cert,omitempty" yaml:"cert"`
	Key  string `json:"key,omitempty" yaml:"key"`
	CA   string `json:"ca,omitempty" yaml:"ca"`
}

// AuthBasic is a name and a password (RFC 7617).
type AuthBasic struct {
	Username string `json:"username" yaml:"username"`
	Password Secret `json:"password" yaml:"password"`
}

// AuthBearer is a token that is sent as it is (RFC 6750).
type AuthBearer struct {
	Token  Secret `json:"token" yaml:"token"`
	Header string `json:"header,omitempty" yaml:"header"` // "Authorization" unless given; another one gets the token alone
}

// AuthOfflineToken exchanges a long-lived token for one that is short-lived
// (OAuth 2.0, RFC 6749 section 6), with which the file's address is asked.
// That answers with the file, or with a JSON object whose body.href is where
// the file can be had without any token.
type AuthOfflineToken struct {
	Token    Secret `json:"token" yaml:"token"`
	TokenURL string `json:"tokenURL,omitempty" yaml:"tokenURL"` // that of Red Hat's single sign-on unless given
	ClientID string `json:"clientID,omitempty" yaml:"clientID"` // "rhsm-api" unless given
}
