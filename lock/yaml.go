package lock

import "caisson/lock/internal/strictyaml"

// DecodeYAML reads a YAML file that people write into the struct that v points
// to, strictly as a manifest: one document, no unknown key, none twice. name
// is how errors call the file. errorf makes an error about the value at a
// path of keys and indexes; it names the file and the line.
func DecodeYAML(name string, b []byte, v any) (errorf func(path []any, format string, args ...any) error, err error) {
	doc, err := strictyaml.Decode(name, b, v)
	if err != nil {
		return nil, err
	}
	return doc.Errorf, nil
}
