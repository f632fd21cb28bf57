package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"kontiki/api"
	"kontiki/errs"
)

// decodeJSON reads the body into out, a pointer to a struct. What out does not have is refused, by its full path; so
// is what comes twice, after the document, or in another form. What the body leaves out stays as it is in out.
func (c *call) decodeJSON(out any) error {
	raw, err := c.readJSON()
	if err != nil {
		return err
	}
	doc, err := singleDocument(raw)
	if err != nil {
		return err
	}
	if err := checkFields(doc, reflect.TypeOf(out).Elem(), ""); err != nil {
		return err
	}
	c.doc = doc
	for _, into := range []any{out, &c.changes} {
		if err := json.Unmarshal(doc, into); err != nil {
			return errs.New(errs.InvalidJSON, "the body cannot be used: %w", err)
		}
	}
	return nil
}

// readJSON reads the whole body of a request that says it is JSON.
func (c *call) readJSON() ([]byte, error) {
	r := c.Request
	media, args, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(args["charset"])
	if err != nil || media != api.ContentTypeJSON || charset != "" && charset != "utf-8" {
		return nil, errs.New(errs.UnsupportedType, "the Content-Type %q is not read here", clip(r.Header.Get("Content-Type"))).
			WithField("Content-Type").WithHint("send application/json in UTF-8")
	}
	tooLarge := errs.New(errs.TooLarge, "the body is over the limit of %d bytes", maxJSON).WithHint("send less")
	if r.ContentLength > maxJSON {
		return nil, tooLarge
	}
	c.readWithin(readJSON)
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	if err != nil {
		return nil, brokenBody(r, int64(len(raw)), err)
	}
	if len(raw) > maxJSON {
		return nil, tooLarge
	}
	return raw, nil
}

// brokenBody says that a body ended before it should.
func brokenBody(r *http.Request, n int64, err error) error {
	if r.ContentLength > 0 {
		return errs.New(errs.Invalid, "the body broke off after %d of %d bytes: %w", n, r.ContentLength, err).WithHint("send it again")
	}
	return errs.New(errs.Invalid, "the body broke off after %d bytes: %w", n, err).WithHint("send it again")
}

// singleDocument checks that raw is exactly one JSON document in UTF-8.
func singleDocument(raw []byte) (json.RawMessage, error) {
	bad := func(format string, args ...any) error { return errs.New(errs.InvalidJSON, format, args...) }
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, bad("the body is empty, a JSON object is expected")
	}
	if !utf8.Valid(raw) {
		return nil, bad("the body is not UTF-8 from offset %d on", firstInvalid(raw))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	var doc json.RawMessage
	if err := dec.Decode(&doc); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, bad("the body is not JSON at offset %d: %w", syntax.Offset, err)
		}
		return nil, bad("the JSON in the body is cut off at offset %d", len(raw))
	}
	if end := int(dec.InputOffset()); len(bytes.TrimSpace(raw[end:])) > 0 {
		return nil, bad("there is something behind the JSON document, from offset %d on", end)
	}
	return doc, nil
}

// firstInvalid is the offset of the first byte that is not UTF-8.
func firstInvalid(raw []byte) int {
	at := 0
	for at < len(raw) {
		r, size := utf8.DecodeRune(raw[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return at
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkFields compares a document with the type it is for and names the first part that does not fit.
func checkFields(doc json.RawMessage, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(unmarshaler) {
		return checkLeaf(doc, t, path)
	}
	fields := map[string]reflect.Type{}
	collectFields(t, fields)
	return eachField(doc, path, func(name, path string, value json.RawMessage) error {
		ft, ok := fields[name]
		if !ok {
			known := make([]string, 0, len(fields))
			for k := range fields {
				known = append(known, k)
			}
			slices.Sort(known)
			return unknown("field", name, path, known)
		}
		return checkFields(value, ft, path)
	})
}

// collectFields finds the JSON names of a struct, those of embedded structs among them.
func collectFields(t reflect.Type, fields map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "":
			collectFields(f.Type, fields)
		default:
			fields[name] = f.Type
		}
	}
}

// eachField visits the members of an object, which doc must be, and refuses one that comes twice.
func eachField(doc json.RawMessage, path string, visit func(name, path string, value json.RawMessage) error) error {
	dec := json.NewDecoder(bytes.NewReader(doc))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errs.New(errs.InvalidJSON, "%s must be an object", orBody(path)).WithField(path)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return errs.New(errs.InvalidJSON, "read the body: %w", err)
		}
		name, _ := token.(string)
		at := name
		if path != "" {
			at = path + "." + name
		}
		if seen[name] {
			return errs.New(errs.InvalidJSON, "the field %s comes twice", clip(at)).WithField(clip(at))
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return errs.New(errs.InvalidJSON, "read the body: %w", err)
		}
		if err := visit(name, at, value); err != nil {
			return err
		}
	}
	return nil
}

func orBody(path string) string {
	if path == "" {
		return "the body"
	}
	return path
}

// checkLeaf decodes a value that is no struct by itself, so that an error can name it.
func checkLeaf(doc json.RawMessage, t reflect.Type, path string) error {
	err := json.Unmarshal(doc, reflect.New(t).Interface())
	var coded *errs.Error
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return coded.WithField(path)
	case errors.As(err, &wrong):
		return errs.New(errs.InvalidJSON, "%s wants %s, not a JSON %s", path, describe(wrong.Type), wrong.Value).WithField(path)
	}
	return errs.New(errs.InvalidJSON, "%s cannot be used: %w", path, err).WithField(path)
}

// describe names a type for people who know JSON and not Go.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number from 0 on"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	}
	return "another value"
}
