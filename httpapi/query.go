package httpapi

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"kontiki/errs"
	"kontiki/fsm"
)

// params are the parameters of a query, each given once at most.
type params map[string]string

// everyRead are the parameters of all reads.
const paramConsistent = "consistent"

// parseQuery reads the query and refuses what the route does not know. A token in the URL is refused by name: URLs are
// logged and remembered everywhere.
func (c *call) parseQuery() error {
	raw := c.Request.URL.RawQuery
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	for _, name := range []string{"token", "access_token"} {
		if values.Has(name) {
			return unauthorised("a token does not belong into a URL, where it is logged and remembered").(*errs.Error).WithField(name)
		}
	}
	if err != nil {
		return errs.New(errs.Invalid, "the query of the URL cannot be read").WithHint("escape special characters as %%XX")
	}
	if c.route.method == "" {
		return nil // there is no such route: the answer says so
	}
	known := c.route.query
	if !c.route.write && !c.route.open {
		known = append(slices.Clip(known), paramConsistent)
	}
	c.query = make(params, len(values))
	for name, v := range values {
		if !slices.Contains(known, name) {
			return unknown("parameter", name, name, known)
		}
		if len(v) != 1 {
			return errs.New(errs.Invalid, "the parameter %s is given %d times", name, len(v)).WithField(name).WithHint("give it once")
		}
		if !printable(v[0]) {
			return errs.New(errs.Invalid, "the parameter %s has control characters or is not UTF-8", name).WithField(name).
				WithHint("leave them out")
		}
		c.query[name] = v[0]
	}
	return nil
}

// flag reads a parameter that is true or false.
func (p params) flag(name string) (bool, error) {
	switch p[name] {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, errs.New(errs.Invalid, "%s is %q", name, clip(p[name])).WithField(name).WithHint("give true or false")
}

// number reads a whole number from lowest to highest; def when it is not given.
func (p params) number(name string, def, lowest, highest int) (int, error) {
	s, ok := p[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < lowest || n > highest {
		return 0, errs.New(errs.Invalid, "%s is %q", name, clip(s)).WithField(name).
			WithHint("give a number from %d to %d", lowest, highest)
	}
	return n, nil
}

// duration reads a duration above zero; def when it is not given.
func (p params) duration(name string, def fsm.Millis) (fsm.Millis, error) {
	s, ok := p[name]
	if !ok {
		return def, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond {
		return 0, errs.New(errs.Invalid, "%s is %q", name, clip(s)).WithField(name).WithHint("give a duration such as 30s")
	}
	return fsm.Millis(d.Milliseconds()), nil
}

// oneOf reads a parameter that is one of a few words; "" when it is not given.
func oneOf[T ~string](p params, name string, words []T) (T, error) {
	s, ok := p[name]
	if !ok {
		return "", nil
	}
	if slices.Contains(words, T(s)) {
		return T(s), nil
	}
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return "", errs.New(errs.Invalid, "%s is %q", name, clip(s)).WithField(name).WithHint("give one of: %s", strings.Join(list, ", "))
}

// unknown refuses a name nobody reads and says which one may be meant.
func unknown(what, name, path string, known []string) error {
	e := errs.New(errs.UnknownField, "there is no %s %q", what, clip(name)).WithField(clip(path))
	if near := errs.Nearest(name, known); near != "" {
		return e.WithHint("did you mean %s", near)
	}
	if len(known) == 0 {
		return e.WithHint("none is read here")
	}
	return e.WithHint("known are: %s", strings.Join(known, ", "))
}

// printable reports whether s is UTF-8 without control and direction-changing characters.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return false
		}
	}
	return true
}

// clip shortens what a user sent for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
