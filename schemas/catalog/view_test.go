package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// TestViewAnswersAsTheCatalog: whatever the order of the records, and with older and
// removed versions in between, a view answers every address as a walk through the
// catalog does; so does its copy through a snapshot.
func TestViewAnswersAsTheCatalog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now := drawCatalog(t, "before"), drawCatalog(t, "now")
		type rec struct {
			Entry
			offset int64
		}
		var log []rec
		state := map[string]bool{}
		for _, e := range before.Entries() {
			log = append(log, rec{e, int64(len(log))})
			state[e.Key] = true
		}
		for _, e := range now.Entries() {
			log = append(log, rec{e, int64(len(log))})
			delete(state, e.Key)
		}
		for key := range state {
			log = append(log, rec{Entry{Key: key}, int64(len(log))})
		}
		v := NewView()
		for _, i := range rapid.Permutation(indices(len(log))).Draw(t, "order") {
			if err := v.Apply(log[i].Key, log[i].Value, log[i].offset); err != nil {
				t.Fatal(err)
			}
		}
		var saved bytes.Buffer
		if err := v.Save(&saved); err != nil {
			t.Fatal(err)
		}
		again, err := LoadView(bytes.NewReader(saved.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		for _, view := range []*View{v, again} {
			if diff := cmp.Diff(now.Entries(), view.Entries(), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("entries:\n%s", diff)
			}
			for _, a := range addresses() {
				got := answerOf(view.Lookup(a[0], a[1]))
				if diff := cmp.Diff(modelLookup(now, a[0], a[1]), got,
					cmpopts.IgnoreUnexported(Workspace{})); diff != "" {
					t.Fatalf("%v: -model +view\n%s", a, diff)
				}
			}
			if diff := cmp.Diff(now.Workspaces(), view.Workspaces(), cmpopts.IgnoreUnexported(Workspace{}),
				cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("workspaces:\n%s", diff)
			}
			if view.Offset() != int64(len(log)-1) {
				t.Fatalf("offset %d of %d records", view.Offset(), len(log))
			}
		}
	})
}

// TestFormatIsReadBack: Parse(Format(x)) = x.
func TestFormatIsReadBack(t *testing.T) {
	check := func(t rapid.TB, c *Catalog) {
		if len(c.Workspaces()) == 0 {
			return
		}
		text := Format(c.Workspaces())
		ws, err := Parse("formatted", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(c.Workspaces(), ws, cmpopts.IgnoreUnexported(Workspace{}),
			cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\n%s", diff, text)
		}
	}
	for _, file := range corpus(t, "good") {
		check(t, mustLoad(t, file))
	}
	rapid.Check(t, func(t *rapid.T) { check(t, drawCatalog(t, "catalog")) })
}

func TestLookupOfTheDemo(t *testing.T) {
	v := mustView(t, mustLoad(t, "testdata/good/acme.yaml").Entries())
	for _, c := range []struct{ host, slug, want string }{
		{"go.acme.com", "nomura", "active lnk_nomura prt_nomura/approved prg_agency 2592000000 10% entitled"},
		{"Go.Acme.Com.:8080", "nomura", "active lnk_nomura prt_nomura/approved prg_agency 2592000000 10% entitled"},
		{"localhost:8080", "creator", "active lnk_creator prt_creator/review prg_creator 1209600000 5.00 USD entitled"},
		{"127.0.0.1:8080", "lookbook", "active lnk_lookbook prt_nomura/approved prg_agency 2592000000 10% " +
			"entitled signed_url"},
		{"go.acme.com", "newsletter", "active lnk_newsletter 2592000000 entitled"},
		{"go.initech.com", "milton", "active lnk_milton prt_milton/approved 2592000000"},
		{"go.acme.com", "Nomura", "unknown"},
		{"go.acme.com", "nomura/", "unknown"},
		{"go.globex.com", "nomura", "unknown"},
		{"acme.com", "nomura", "unknown"},
		{"", "", "unknown"},
	} {
		r, found := v.Lookup(c.host, c.slug)
		if got := describe(r, found); got != c.want {
			t.Errorf("%s/%s: %s, want %s", c.host, c.slug, got, c.want)
		}
	}
	if got := v.LongestWindow(); got != DefaultWindow {
		t.Errorf("longest window %v", got)
	}
}

func describe(r Resolved, found LookupResult) string {
	words := []string{found.String()}
	if found == Unknown {
		return words[0]
	}
	words = append(words, r.Link.ID)
	if r.Partner != nil {
		words = append(words, r.Partner.ID+"/"+r.Partner.Relationship)
	}
	if r.Program != nil {
		words = append(words, r.Program.ID)
	}
	words = append(words, fmt.Sprint(r.WindowMs))
	if r.RewardTerms != "" {
		words = append(words, r.RewardTerms)
	}
	if r.Workspace.Entitled() {
		words = append(words, "entitled")
	}
	if r.WithholdReason != "" {
		words = append(words, r.WithholdReason)
	}
	return strings.Join(words, " ")
}

// TestViewFollowsTheTopic applies a short history: records that are not there yet,
// edits, archiving, removal, and catalog_offset.
func TestViewFollowsTheTopic(t *testing.T) {
	v := NewView()
	values := map[string][]byte{}
	for _, e := range mustLoad(t, "testdata/good/acme.yaml").Entries() {
		values[e.Key] = e.Value
	}
	apply := func(key string, offset int64, replace ...string) {
		t.Helper()
		value := []byte(strings.NewReplacer(replace...).Replace(string(values[key])))
		if err := v.Apply(key, value, offset); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string, offset int64) {
		t.Helper()
		r, found := v.Lookup("localhost", "nomura")
		if got := describe(r, found); got != want || found != Unknown && r.Offset != offset {
			t.Errorf("got %s at %d, want %s at %d", got, r.Offset, want, offset)
		}
	}
	expect("unknown", 0)
	apply("link/go.acme.com/nomura", 10)
	expect("unknown", 0)
	apply("domain/localhost", 7)
	expect("active lnk_nomura prt_nomura/ prg_agency 2592000000", 10) // only their ids are known
	apply("workspace/acme", 11)
	apply("partner/acme/prt_nomura", 4)
	apply("program/acme/prg_agency", 5)
	expect("active lnk_nomura prt_nomura/approved prg_agency 2592000000 10% entitled", 11)
	apply("program/acme/prg_agency", 12, "2592000000", "60000", `"10"`, `"20"`)
	expect("active lnk_nomura prt_nomura/approved prg_agency 60000 20% entitled", 12)
	apply("partner/acme/prt_nomura", 13, "approved", "banned")
	apply("partner/acme/prt_nomura", 3) // an older one comes late
	expect("active lnk_nomura prt_nomura/banned prg_agency 60000 20% entitled", 13)
	apply("workspace/acme", 14, "nim_ct", "REF") // the destination has ?ref=
	expect("active lnk_nomura prt_nomura/banned prg_agency 60000 20% entitled reserved_present", 14)
	apply("domain/localhost", 15, `"status":"active"`, `"status":"archived"`)
	expect("archived lnk_nomura prt_nomura/banned prg_agency 60000 20% entitled reserved_present", 15)
	// acme's links are not globex's
	apply("domain/localhost", 16, `"workspace":"acme"`, `"workspace":"globex"`)
	expect("unknown", 0)
	apply("domain/localhost", 17)
	apply("link/go.acme.com/nomura", 18, `"status":"active"`, `"status":"archived"`)
	expect("archived lnk_nomura prt_nomura/banned prg_agency 60000 20% entitled reserved_present", 18)
	if err := v.Apply("link/go.acme.com/nomura", nil, 19); err != nil {
		t.Fatal(err)
	}
	expect("unknown", 0)
	apply("link/go.acme.com/nomura", 18) // does not come back
	expect("unknown", 0)
	if _, ok := v.Workspace("globex"); ok {
		t.Error("globex has no record")
	}
	if w, ok := v.Workspace("acme"); !ok || w.TokenParameter != "REF" || !w.Access.Exports {
		t.Errorf("workspace acme: %v %+v", ok, w)
	}
}

// TestBadRecords: an error names the key, and the record before it stays.
func TestBadRecords(t *testing.T) {
	v := mustView(t, mustLoad(t, "testdata/good/acme.yaml").Entries())
	before := v.Entries()
	for _, c := range []struct{ key, value, want string }{
		{"nonsense", "{}", "unknown kind"},
		{"user/acme", "{}", "unknown kind"},
		{"workspace/acme", "{", "unexpected EOF"},
		{"workspace/acme", `{"id":"acme","id":"acme"}`, "duplicate"},
		{"workspace/acme", `{"id":"acme","name":"A","plan":"gold"}`, `plan: unknown plan "gold"`},
		{"workspace/acme", `{"id":"globex","name":"A","plan":"plus"}`, `belongs under "workspace/globex"`},
		{"partner/acme/prt_nomura", `{"workspace":"acme","id":"prt_nomura"}`, "key: required"},
		{"partner/acme/prt_nomura",
			`{"workspace":"A!","id":"prt_nomura","key":"k","name":"n","relationship":"approved","lifecycle":"active"}`,
			`bad workspace id "A!"`},
		{"program/acme/prg_agency",
			`{"workspace":"acme","id":"prg_agency","key":"k","name":"n","status":"active","window_ms":7776001000}`,
			"window: window is longer than 90d"},
		{"program/acme/prg_agency",
			`{"workspace":"acme","id":"prg_agency","key":"k","name":"n","status":"active","follow_ms":33696001000}`,
			"follow: follow is longer than 390d"},
		{"program/acme/prg_agency",
			`{"workspace":"acme","id":"prg_agency","key":"k","name":"n","status":"active","follow_ms":-1000}`,
			"follow: follow must not be negative"},
		{"program/acme/prg_agency",
			`{"workspace":"acme","id":"prg_agency","key":"k","name":"n","status":"active","follow_ms":1500}`,
			"follow: follow must be whole seconds"},
		{"link/go.acme.com/nomura",
			`{"workspace":"acme","id":"l","domain":"go.acme.com","slug":"nomura","destination":"/x","token":"auto","status":"active"}`, "absolute URL"},
		{"domain/go.acme.com", `{"host":"go.acme.com","domain":"go.acme.com","workspace":"acme","status":"?"}`,
			"unknown status"},
		{"domain/go.acme.com", "\xff", "invalid"},
	} {
		err := v.Apply(c.key, []byte(c.value), 1000)
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), fmt.Sprintf("%q", c.key)) {
			t.Errorf("%s %s: got %v, want %q and the key", c.key, c.value, err, c.want)
		}
	}
	if diff := cmp.Diff(before, v.Entries()); diff != "" {
		t.Error(diff)
	}
	newer := `{"host":"go.acme.com","domain":"go.acme.com","workspace":"acme","status":"active","added_later":{"x":1}}`
	if err := v.Apply("domain/go.acme.com", []byte(newer), 2000); err != nil {
		t.Errorf("a field of a later version: %v", err)
	}
}

// TestLookupDuringApply is for the race detector; and a link is never seen with half of
// an edit.
func TestLookupDuringApply(t *testing.T) {
	entries := mustLoad(t, "testdata/good/acme.yaml").Entries()
	v := mustView(t, entries)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, found := v.Lookup("go.acme.com", "nomura")
				if found != Active || r.Program.WindowMs != r.WindowMs || r.Program.Reward.Terms() != r.RewardTerms {
					t.Errorf("%v %+v", found, r)
					return
				}
			}
		})
	}
	key := "program/acme/prg_agency"
	for i := range 500 {
		value := fmt.Sprintf(
			`{"workspace":"acme","id":"prg_agency","key":"k","name":"n","status":"active","window_ms":%d,"reward":{"percent":"%d"}}`,
			1000*(i+1), i%100)
		if err := v.Apply(key, []byte(value), int64(1000+i)); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := v.Save(new(bytes.Buffer)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	v := mustView(t, mustLoad(t, "testdata/good/acme.yaml").Entries())
	if n := testing.AllocsPerRun(100, func() { v.Lookup("go.acme.com", "nomura") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// load feeds a view with n links, and looks one up after each.
func load(t testing.TB, entries []Entry) {
	v := NewView()
	for i, e := range entries {
		if err := v.Apply(e.Key, e.Value, int64(i)); err != nil {
			t.Fatal(err)
		}
		v.Lookup("go.acme.com", "s0")
	}
}

// TestLoadingIsLinear: ten times the records allocate ten times as much, look-ups in
// between included. A view that made anything anew with each record would allocate a
// hundred times as much.
func TestLoadingIsLinear(t *testing.T) {
	allocated := func(n int) float64 {
		entries := linkEntries(n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		load(t, entries)
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	if small, large := allocated(1000), allocated(10_000); large > 20*small {
		t.Errorf("1,000 records allocate %.0f bytes, 10,000 records %.0f", small, large)
	}
}

// BenchmarkLoading: the time of a record is the same however many there are.
func BenchmarkLoading(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			entries := linkEntries(n)
			for b.Loop() {
				load(b, entries)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

func linkEntries(n int) []Entry {
	out := make([]Entry, n)
	for i := range out {
		out[i] = Entry{fmt.Sprintf("link/go.acme.com/s%d", i), fmt.Appendf(nil,
			`{"workspace":"acme","id":"l%d","domain":"go.acme.com","slug":"s%[1]d","destination":"https://x.com/","token":"auto","status":"active"}`, i)}
	}
	return out
}

func TestSnapshotDamage(t *testing.T) {
	v := mustView(t, mustLoad(t, "testdata/good/acme.yaml").Entries())
	var b bytes.Buffer
	if err := v.Save(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	for n := range whole {
		if _, err := LoadView(bytes.NewReader(whole[:n])); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
	for range 2000 {
		damaged := bytes.Clone(whole)
		damaged[rand.IntN(len(damaged))] ^= 1 << rand.IntN(8)
		if _, err := LoadView(bytes.NewReader(damaged)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("one flipped bit: %v", err)
		}
	}
	for input, want := range map[string]string{
		"":                             "empty",
		"PARTCAT2" + string(whole[8:]): "version",
		"GIF89a":                       "not a catalog snapshot",
		string(whole[:100]):            "checksum",
		string(whole) + "x":            "checksum",
		string(whole[:10]):             "truncated at 10 bytes",
	} {
		if _, err := LoadView(strings.NewReader(input)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %s", input, err, want)
		}
	}
	failing := errors.New("disk gone")
	if _, err := LoadView(&failingReader{failing}); !errors.Is(err, failing) || errors.Is(err, ErrSnapshot) {
		t.Errorf("a failing reader: %v", err)
	}
	if err := v.Save(&failingReader{failing}); !errors.Is(err, failing) {
		t.Errorf("a failing writer: %v", err)
	}
	empty := new(bytes.Buffer)
	if err := NewView().Save(empty); err != nil {
		t.Fatal(err)
	}
	if v, err := LoadView(empty); err != nil || v.Offset() != -1 {
		t.Errorf("an empty view: %v, %v", v, err)
	}
}

type failingReader struct{ err error }

func (f *failingReader) Read([]byte) (int, error)  { return 0, f.err }
func (f *failingReader) Write([]byte) (int, error) { return 0, f.err }

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		files, _ := os.ReadDir("testdata/" + dir)
		for _, file := range files {
			if data, err := os.ReadFile("testdata/" + dir + "/" + file.Name()); err == nil &&
				strings.HasSuffix(file.Name(), ".yaml") {
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ws, err := Parse("f", data)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("no position: %s", line)
				}
			}
			return
		}
		c, err := New(ws)
		if err != nil {
			t.Fatalf("New refuses what Parse accepts: %v", err)
		}
		mustView(t, c.Entries())
		again, err := Parse("again", Format(ws))
		if err != nil {
			t.Fatalf("%v\n%s", err, Format(ws))
		}
		if diff := cmp.Diff(ws, again, cmpopts.IgnoreUnexported(Workspace{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzApply(f *testing.F) {
	entries := mustLoad(f, "testdata/good/acme.yaml").Entries()
	for _, e := range entries {
		f.Add(e.Key, e.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		v := mustView(t, entries)
		before := len(v.Entries())
		err := v.Apply(key, value, 1000)
		if err != nil && len(v.Entries()) != before {
			t.Fatal("a bad record changed the view")
		}
		if _, found := v.Lookup("go.globex.com", "hank"); found != Active && !strings.Contains(key, "globex") {
			t.Fatalf("%s broke a link of another workspace", key)
		}
		v.Workspaces()
		var saved bytes.Buffer
		if err := v.Save(&saved); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadView(&saved); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzLoadView(f *testing.F) {
	var saved bytes.Buffer
	if err := mustView(f, mustLoad(f, "testdata/good/acme.yaml").Entries()).Save(&saved); err != nil {
		f.Fatal(err)
	}
	f.Add(saved.Bytes())
	f.Add(saved.Bytes()[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = withChecksum(data) // or nothing would get past it
		v, err := LoadView(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrSnapshot) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := v.Save(&again); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadView(&again); err != nil {
			t.Fatal(err)
		}
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func BenchmarkLookup(b *testing.B) {
	v := mustView(b, append(mustLoad(b, "testdata/good/acme.yaml").Entries(), linkEntries(100_000)...))
	slugs := make([]string, 1024)
	for i := range slugs {
		slugs[i] = fmt.Sprintf("s%d", rand.IntN(100_000))
	}
	for _, host := range []string{"go.acme.com", "Go.Acme.Com:8080"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, found := v.Lookup(host, slugs[i%len(slugs)]); found != Active {
						b.Error(found)
						return
					}
				}
			})
		})
	}
}

func BenchmarkApply(b *testing.B) {
	entries := linkEntries(10_000)
	v := NewView()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := entries[i%len(entries)]
		if err := v.Apply(e.Key, e.Value, int64(i)); err != nil {
			b.Fatal(err)
		}
	}
}
