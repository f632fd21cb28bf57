package fsm

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"kontiki/errs"
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// NewID gives a fresh ULID: sortable by time, unique. Only proposers call it, Apply never does.
func NewID() string { return ulid.Make().String() }

// ValidID reports whether s is a ULID.
func ValidID(s string) bool {
	_, err := ulid.ParseStrict(s)
	return err == nil
}

// CheckName refuses what cannot name a project or node: lower-case letters, digits and inner dashes, 1 to 63, no "--"
// (that separates a deployment from its project in host names). what says what is named.
func CheckName(what, name string) error {
	if nameForm.MatchString(name) && !strings.Contains(name, "--") {
		return nil
	}
	return errs.New(errs.Invalid, "%q cannot be the name of a %s", clip(name), what).WithField(what).
		WithHint("use 1 to 63 lower-case letters, digits and single dashes, beginning and ending with a letter or digit")
}

// CheckDomain refuses what is no host name of at least two labels.
func CheckDomain(domain string) error {
	labels := strings.Split(domain, ".")
	bad := len(domain) > 253 || len(labels) < 2
	for _, l := range labels {
		bad = bad || !nameForm.MatchString(l)
	}
	if !bad {
		return nil
	}
	return errs.New(errs.Invalid, "%q is not a domain", clip(domain)).WithField("domains").
		WithHint("give a lower-case host name such as www.example.org")
}

// CheckMetadata refuses metadata over 64 pairs, keys over 63 bytes, values over 1024 and control characters.
func CheckMetadata(m map[string]string) error {
	if len(m) > 64 {
		return errs.New(errs.Invalid, "metadata has %d pairs", len(m)).WithField("metadata").WithHint("keep it to 64")
	}
	found, bad := false, ""
	for k, v := range m { // the least of several bad ones is named: every node has to give the same answer
		if (!found || k < bad) && (k == "" || len(k) > 63 || len(v) > 1024 || !printable(k) || !printable(v)) {
			found, bad = true, k
		}
	}
	if !found {
		return nil
	}
	return errs.New(errs.Invalid, "metadata %q is not acceptable", clip(bad)).WithField("metadata").
		WithHint("keys have 1 to 63 bytes, values up to 1024, neither has control characters")
}

// printable reports whether s is valid UTF-8 without control and direction-changing characters.
func printable(s string) bool {
	plain := 0
	for plain < len(s) && s[plain] >= ' ' && s[plain] <= '~' {
		plain++
	}
	if s = s[plain:]; !utf8.ValidString(s) { // most text ends here: the state machine checks every value it takes in
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return false
		}
	}
	return true
}

// clip shortens user input for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
