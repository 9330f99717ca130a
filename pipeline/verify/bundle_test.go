package verify_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// writeBundle makes the bundle of a partner.
func writeBundle(t testing.TB, w *world, partner string) ([]byte, verify.BundleCounts) {
	t.Helper()
	var b bytes.Buffer
	counts, err := verify.WriteBundle(t.Context(), verify.BundleConfig{
		Workspace: "acme",
		Partner:   partner,
		MadeAt:    time.Unix(1_700_000_000, 0),
	}, w.source(), codec, &b)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), counts
}

func openBundle(t testing.TB, file []byte) *verify.Bundle {
	t.Helper()
	b, err := verify.OpenBundle(bytes.NewReader(file), int64(len(file)), codec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// partnerTokens are the tokens of the clicks of each partner.
func (w *world) partnerTokens(t testing.TB) map[string]string {
	t.Helper()
	partners := make(map[string]string)
	for _, list := range w.records[topic.Clicks] {
		for _, r := range list {
			var k event.Click
			if err := codec.DecodeClick(r.Value, &k); err != nil {
				t.Fatal(err)
			}
			partners[k.ClickToken] = k.PartnerID
		}
	}
	return partners
}

// A bundle verifies as the whole ledger does, for the rows of the partner's tokens.
func TestBundleIsEqual(t *testing.T) {
	w := judgedWorld(t)
	partners := w.partnerTokens(t)
	for _, partner := range []string{"prt_0", "prt_1", "prt_2"} {
		var want int64
		for _, r := range w.rows(t, "acme") {
			if partners[r.ClickToken] == partner {
				want++
			}
		}
		file, counts := writeBundle(t, w, partner)
		x := tally(t, runSource(t, openBundle(t, file).Source, verify.Config{}), "outcomes")
		if !x.OK() || x.Equal != want || want == 0 || counts.Outcomes != want {
			t.Errorf("%s has %d rows: %v; %+v\n%v", partner, want, x, counts, x.Differences)
		}
	}
}

// A bundle has records of the partner's tokens alone, and nothing of them that is the
// merchant's business.
func TestBundleHasNothingElse(t *testing.T) {
	w := judgedWorld(t)
	partners := w.partnerTokens(t)
	file, _ := writeBundle(t, w, "prt_1")
	archive, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range archive.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f.Name, ".jsonl") {
			all.Write(text)
		}
	}
	text := all.String()
	for tok, partner := range partners {
		if partner != "prt_1" && strings.Contains(text, tok) {
			t.Errorf("token %s of %s is in the bundle", tok, partner)
		}
	}
	var hashes []string
	for _, r := range w.rows(t, "acme") {
		hashes = append(hashes, string(r.ContentSHA256[:]))
	}
	for _, secret := range []string{"customer-of-the-merchant", "key-of-the-merchant", "metadata-of-the-merchant",
		"0123456789abcdef", "prt_0", "prt_2", "Partner 0", "globex"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the bundle", secret)
		}
	}
	b := openBundle(t, file)
	for _, p := range b.Source.Partitions {
		if err := b.Source.Each(t.Context(), topic.Conversions, p.ID, func(r *verify.Record) error {
			var ev event.Conversion
			if err := codec.DecodeConversion(r.Value, &ev); err != nil {
				return err
			}
			if slices.Contains(hashes, string(ev.ContentSHA256[:])) || ev.ContentSHA256 == ev.ContentHash() {
				return fmt.Errorf("offset %d shows the hash of its content", r.Offset)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// What is wrong in the ledger is wrong in the bundle, too.
func TestBundleOfAWrongLedger(t *testing.T) {
	original := judgedWorld(t)
	partners := original.partnerTokens(t)
	rows := slices.DeleteFunc(original.rows(t, "acme"), func(r row) bool {
		return partners[r.ClickToken] != "prt_1" || r.AmountMinor == nil || isFirstOrLast(original, r.Place)
	})
	r := rows[rand.IntN(len(rows))]
	w := original.clone()
	o := r.Outcome
	amount := *o.AmountMinor + 1
	o.AmountMinor = &amount
	w.replaceRow(t, r.Place, &o)
	file, _ := writeBundle(t, w, "prt_1")
	x := tally(t, runSource(t, openBundle(t, file).Source, verify.Config{}), "outcomes")
	wantOne(t, "amount", x, verify.Differs, &verify.Place{Partition: r.EventPartition, Offset: r.EventOffset}, &r.Place,
		"amount_minor")
}

// Rows of a partner whose clicks are deleted come with their events, and are not
// re-derivable.
func TestBundleWithoutClicks(t *testing.T) {
	w := judgedWorld(t).clone()
	for i := range w.partitions {
		p := &w.partitions[i]
		w.records[topic.Clicks][p.ID] = nil
		p.Clicks.Start = p.Clicks.End
		p.Clicks.FirstAt = 1 << 50
	}
	file, counts := writeBundle(t, w, "prt_1")
	x := tally(t, runSource(t, openBundle(t, file).Source, verify.Config{}), "outcomes")
	if counts.Outcomes == 0 || counts.Clicks != 0 || !x.OK() || x.NotDerivable[verify.ClickExpired] != counts.Outcomes {
		t.Errorf("%+v: %v", counts, x)
	}
}

// A bundle says which of the partner's tokens were given up, and nobody else's: their rows
// are not derivable, as in the whole ledger. One of format 1 does not say it.
func TestBundleOfGivenUpTokens(t *testing.T) {
	original := judgedWorld(t)
	partners := original.partnerTokens(t)
	rows := slices.DeleteFunc(original.rows(t, "acme"), func(r row) bool {
		return partners[r.ClickToken] != "prt_1" || r.Verdict != event.Attributed || isFirstOrLast(original, r.Place)
	})
	r := rows[0]
	w := original.clone()
	o := r.Outcome
	o.Verdict, o.Reason, o.Click, o.Flags = event.Unattributed, event.ReasonGivenUp, nil, nil
	w.replaceRow(t, r.Place, &o)
	for i := range w.partitions {
		w.partitions[i].IsGivenUp = func(tok string) bool { return tok == r.ClickToken || partners[tok] == "prt_0" }
	}
	file, counts := writeBundle(t, w, "prt_1")
	b := openBundle(t, file)
	if got := b.Header.GivenUp; b.Header.Format != 2 || !slices.Equal(got, []string{r.ClickToken}) {
		t.Errorf("format %d says %v", b.Header.Format, got)
	}
	x := tally(t, runSource(t, b.Source, verify.Config{}), "outcomes")
	if n := x.NotDerivable[verify.TokenGivenUp]; !x.OK() || n == 0 || x.Equal+n != counts.Outcomes {
		t.Errorf("%+v: %v", counts, x)
	}
	old := rewriteBundle(t, file, func(name, text string) string {
		text = strings.Replace(text, `"format": 2`, `"format": 1`, 1)
		return regexp.MustCompile(`(?s),\s*"given_up": \[.*?\]`).ReplaceAllString(text, "")
	})
	b = openBundle(t, old)
	if x := tally(t, runSource(t, b.Source, verify.Config{}), "outcomes"); x.OK() || len(b.Header.GivenUp) > 0 {
		t.Errorf("format 1: %v", x)
	}
}

// rewriteBundle changes one file of a bundle.
func rewriteBundle(t testing.TB, file []byte, change func(name, text string) string) []byte {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	out := zip.NewWriter(&b)
	for _, f := range archive.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		w, err := out.Create(f.Name)
		if err == nil {
			_, err = io.WriteString(w, change(f.Name, string(text)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A bundle that cannot be used says why.
func TestBadBundles(t *testing.T) {
	file, _ := writeBundle(t, judgedWorld(t), "prt_1")
	for want, change := range map[string]func(name, text string) string{
		"judged by version 9 of the rules": func(name, text string) string {
			return strings.Replace(text, `"rules_version": 2`, `"rules_version": 9`, 1)
		},
		"format 7": func(name, text string) string { return strings.Replace(text, `"format": 2`, `"format": 7`, 1) },
		"workspace or partner is missing": func(name, text string) string {
			return strings.Replace(text, `"partner": "prt_1"`, `"partner": ""`, 1)
		},
		"conversions.jsonl line 1": func(name, text string) string {
			if strings.HasSuffix(name, "conversions.jsonl") {
				return "{" + text
			}
			return text
		},
		"line 1: an amount has 2000000000 digits": func(name, text string) string {
			if strings.HasSuffix(name, "conversions.jsonl") {
				return regexp.MustCompile(`"exponent":\d+`).ReplaceAllString(text, `"exponent":2000000000`)
			}
			return text
		},
		"is not in order": func(name, text string) string {
			if strings.HasSuffix(name, "outcomes.jsonl") {
				return text + strings.SplitAfter(text, "\n")[0]
			}
			return text
		},
	} {
		changed := rewriteBundle(t, file, change)
		b, err := verify.OpenBundle(bytes.NewReader(changed), int64(len(changed)), codec)
		if err == nil {
			_, err = verify.Run(t.Context(), verify.Config{Workspace: "acme", TempDir: t.TempDir()}, b.Source, codec)
		}
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, verify.ErrBundle) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if _, err := verify.OpenBundle(strings.NewReader("no zip"), 6, codec); !errors.Is(err, verify.ErrBundle) {
		t.Errorf("no zip: %v", err)
	}
}

// FuzzBundle: no bytes in a bundle's files make the verifier panic or hang; each error
// is one about the bundle.
func FuzzBundle(f *testing.F) {
	line := `{"offset":0,"at_ms":1,"record":{}}`
	f.Add(`{"format":1,"workspace":"acme","partner":"p","rules_version":2,"partitions":[{"partition":0,`+
		`"conversions":{"start":0,"end":9},"clicks":{"end":9},"outcomes":{"end":9},"times":[{"grace_ms":1000,`+
		`"click_life_ms":100000,"journey_life_ms":100000}]}]}`, line, line, line)
	f.Add(`{}`, "", "", "")
	f.Fuzz(func(t *testing.T, header, clicks, conversions, outcomes string) {
		var b bytes.Buffer
		out := zip.NewWriter(&b)
		for name, text := range map[string]string{"bundle.json": header, "0/clicks.jsonl": clicks,
			"0/conversions.jsonl": conversions, "0/outcomes.jsonl": outcomes} {
			w, err := out.Create(name)
			if err == nil {
				_, err = io.WriteString(w, text)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		bundle, err := verify.OpenBundle(bytes.NewReader(b.Bytes()), int64(b.Len()), codec)
		if err != nil {
			if !errors.Is(err, verify.ErrBundle) {
				t.Fatal(err)
			}
			return
		}
		// What the lines say decides about the rows; whatever it is, it ends.
		_, _ = verify.Run(t.Context(), verify.Config{Workspace: bundle.Header.Workspace, TempDir: t.TempDir()},
			bundle.Source, codec)
	})
}
