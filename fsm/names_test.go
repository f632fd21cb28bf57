package fsm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"kontiki/errs"
)

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "0", "a-b", "my-site-2", strings.Repeat("a", 63)} {
		if err := CheckName("project", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "a--b", "A", "a.b", "a_b", "../x", "a b", "a\n", "ä", "\u202e", "<b>", "$(x)", strings.Repeat("a", 64), strings.Repeat("é", 5000), "\xff"} {
		err := errs.From(CheckName("project", bad))
		if err == nil || err.Code != errs.Invalid || err.Field != "project" || err.Hint == "" || len(err.Message) > 400 || !utf8.ValidString(err.Message) {
			t.Errorf("%q: %v", clip(bad), err)
		}
	}
}

func TestCheckDomain(t *testing.T) {
	for _, good := range []string{"a.b", "www.example.org", "xn--bcher-kva.example", "1.2"} {
		if err := CheckDomain(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a", ".a", "a.", "a..b", "A.b", "a.b/", "a.b:80", "*.a.b", strings.Repeat("a.", 127) + "a", strings.Repeat("a", 64) + ".b"} {
		if err := errs.From(CheckDomain(bad)); err == nil || err.Code != errs.Invalid || err.Field != "domains" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckMetadata(t *testing.T) {
	if err := CheckMetadata(map[string]string{"key": strings.Repeat("v", 1024), strings.Repeat("k", 63): "ünïcode"}); err != nil {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range 65 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for name, bad := range map[string]map[string]string{
		"many": many, "empty key": {"": "x"}, "long key": {strings.Repeat("k", 64): ""}, "long value": {"k": strings.Repeat("v", 1025)},
		"control": {"k": "\x1b[2J"}, "bidi": {"\u202e": "v"}, "not UTF-8": {"k": "\xff"},
	} {
		if err := errs.From(CheckMetadata(bad)); err == nil || err.Code != errs.Invalid || err.Field != "metadata" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDsAndDigests(t *testing.T) {
	if !ValidID(NewID()) || !ValidID(nth(1)) || ValidID("") || ValidID("../x") || ValidID(nth(1)+"0") || ValidID(strings.Repeat("U", 26)) {
		t.Error("a ULID is one, and nothing else is")
	}
	if !ValidDigest(digest("x")) || ValidDigest(strings.ToUpper(digest("x"))) || ValidDigest(digest("x")+"0") || ValidDigest("sha256:") {
		t.Error("a digest is one, and nothing else is")
	}
}

func TestTimeJSON(t *testing.T) {
	for in, want := range map[Time]string{0: "null", 1: `"1970-01-01T00:00:00.001Z"`, 1_700_000_000_123: `"2023-11-14T22:13:20.123Z"`} {
		b, err := json.Marshal(in)
		if err != nil || string(b) != want {
			t.Errorf("%d is written as %s, %v", in, b, err)
		}
		out := Time(99)
		if err := json.Unmarshal(b, &out); err != nil || out != in {
			t.Errorf("%s is read as %d, %v", b, out, err)
		}
	}
	var x Time
	if err := json.Unmarshal([]byte(`"yesterday"`), &x); err == nil {
		t.Error("yesterday is a time")
	}
	if got := Now().Std(); got.Location() != time.UTC || time.Since(got) > time.Hour {
		t.Errorf("now is %v", got)
	}
}

func TestMillisJSON(t *testing.T) {
	b, err := json.Marshal(Millis(90_000))
	if err != nil || string(b) != `"1m30s"` {
		t.Errorf("%s, %v", b, err)
	}
	var m Millis
	if err := json.Unmarshal(b, &m); err != nil || m != 90_000 || m.Std() != 90*time.Second {
		t.Errorf("%d, %v", m, err)
	}
	for _, bad := range []string{`5`, `"soon"`, `{}`} {
		if err := json.Unmarshal([]byte(bad), &m); err == nil {
			t.Errorf("%s is a duration", bad)
		}
	}
}
