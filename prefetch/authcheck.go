package prefetch

import "caisson/lock"

// CheckLogin tells, with no network, whether what an Auth names is there and can
// be used: files, certificates that are valid now, variables.
func CheckLogin(cfg Config, a *lock.Auth) error {
	c, err := NewClient(cfg)
	if err == nil && a != nil {
		_, err = c.loginBy(a)
	}
	return err
}
