package currency

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLookup(t *testing.T) {
	for code, want := range map[string]int32{
		"EUR": 2,
		"USD": 2,
		"JPY": 0,
		"KRW": 0,
		"KWD": 3,
		"IQD": 3,
		"CLF": 4,
		"UYW": 4,
		"UYI": 0,
		"UGX": 0,
		"ISK": 0,
		"AFN": 2,
		"ZWG": 2,
		"VED": 2,
		"XAU": 0,
	} {
		if got, ok := Lookup(code); !ok || got.Digits != want {
			t.Errorf("%s: %+v, %v; want %d digits", code, got, ok, want)
		}
	}
	for _, code := range []string{"", "eur", "Eur", "EURO", "ſEK", "GGP", "LTL", "BYR", "code", "#"} {
		if got, ok := Lookup(code); ok {
			t.Errorf("%q is %+v", code, got)
		}
	}
}

// Days are those of UTC, and both ends count.
func TestInForce(t *testing.T) {
	at := func(text string) time.Time {
		t.Helper()
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	f := func(code, from, to string, want bool) {
		t.Helper()
		c, ok := Lookup(code)
		if !ok {
			t.Fatalf("no %s", code)
		}
		if got := c.InForce(at(from), at(to)); got != want {
			t.Errorf("%s in force from %s to %s: %v", code, from, to, got)
		}
	}
	on := func(code, day string, want bool) { t.Helper(); f(code, day, day, want) }
	on("EUR", "1960-01-01T00:00:00Z", true)
	on("EUR", "9999-12-31T23:59:59Z", true)
	on("ZWG", "2024-06-24T23:59:59.999Z", false)
	on("ZWG", "2024-06-25T00:00:00Z", true)
	on("ZWL", "2024-08-31T23:59:59.999Z", true)
	on("ZWL", "2024-09-01T01:30:00+02:00", true) // 31 August in UTC
	on("ZWL", "2024-09-01T00:00:00Z", false)
	on("BGN", "2025-12-31T12:00:00Z", true)
	on("BGN", "2026-01-01T00:00:00Z", false)
	f("BGN", "2025-12-31T23:00:00Z", "2028-01-01T00:00:00Z", true)
	f("BGN", "2026-01-01T00:00:00Z", "2028-01-01T00:00:00Z", false)
	f("XCG", "2020-01-01T00:00:00Z", "2025-03-30T00:00:00Z", false)
	f("XCG", "2020-01-01T00:00:00Z", "2025-03-31T00:00:00Z", true)
}

// What the list has that is no money, and what was withdrawn before it was published.
func TestList(t *testing.T) {
	published := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var others, withdrawn []string
	for code, c := range table() {
		if !regexp.MustCompile(`^[A-Z]{3}$`).MatchString(code) || c.Code != code || c.until < c.from || c.Digits > 4 {
			t.Errorf("%q: %+v", code, c)
		}
		if !c.Money {
			others = append(others, code)
		}
		if !c.InForce(published, published) {
			withdrawn = append(withdrawn, code)
		}
	}
	if n := len(table()); n != 178+len(withdrawn) {
		t.Errorf("%d codes, %d of them withdrawn; list one has 178", n, len(withdrawn))
	}
	slices.Sort(others)
	slices.Sort(withdrawn)
	if got, want := strings.Join(others, " "), "BOV CHE CHW CLF COU MXV USN UYI UYW XAD XAG XAU XBA XBB XBC XBD XDR "+
		"XPD XPT XSU XTS XUA XXX"; got != want {
		t.Errorf("no money: %s\nwant %s", got, want)
	}
	if got, want := strings.Join(withdrawn, " "),
		"ANG BGN CUC HRK SLL VEF ZWD ZWL"; got != want {
		t.Errorf("withdrawn: %s\nwant %s", got, want)
	}
	rows := regexp.MustCompile(`(?m)^[A-Z]{3},[0-4],(money|fund|unit),(\d{4}-\d{2}-\d{2})?,(\d{4}-\d{2}-\d{2})?$`)
	if n := len(rows.FindAllString(list, -1)); n != len(table()) {
		t.Errorf("%d lines of the list have its form, %d codes are read", n, len(table()))
	}
}

func TestReadListErrors(t *testing.T) {
	for text, want := range map[string]string{
		"code,digits,kind,from,until\nEUR,x,money,,\n":           "digits of EUR",
		"code,digits,kind,from,until\nEUR,2,money,2026-13-01,\n": "first day of EUR",
		"code,digits,kind,from,until\nEUR,2,money,,yesterday\n":  "last day of EUR",
		"code,digits,kind,from,until\nEUR,2\n":                   "wrong number of fields",
	} {
		if _, err := readList(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
