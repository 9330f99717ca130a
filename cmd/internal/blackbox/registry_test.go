//go:build linux

package blackbox

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// schemaIDs is the file of -schema-ids.
func (r *rig) schemaIDs() string { return filepath.Join(r.dir, "ids.json") }

// startRegistry starts a schema registry in which somebody else has got so many ids.
func (r *rig) startRegistry(taken int) (url string) {
	r.t.Helper()
	reg := srfake.New()
	r.t.Cleanup(reg.Close)
	reg.SeedSchema("others-value", 1, taken, sr.Schema{Schema: `"string"`})
	return reg.URL()
}

// adoptRegistry adopts a schema registry while visitors and merchants are served.
func (r *rig) adoptRegistry(l *trafficLoad) {
	r.t.Helper()
	apply := func(url, file string) []string {
		return []string{"topics", "apply", "-replication", "1", "-schema-registry", url, "-schema-ids", file}
	}
	// A registry that has given a built-in id to another record of ours.
	refused := filepath.Join(r.dir, "refused.json")
	r.wantCtl(1, []string{"is Conversion version 1, and in the registry Click version 1", "mode IMPORT"},
		apply(r.startRegistry(1), refused)...)
	if _, err := os.Stat(refused); err == nil {
		r.t.Errorf("%s was written", refused)
	}

	// A file as an earlier release made it, without the built-in ids.
	url, lacking := r.startRegistry(100), r.schemaIDs()
	r.wantCtl(0, []string{"wrote 20 schema ids"}, apply(url, lacking)...)
	whole, err := os.ReadFile(lacking)
	if err != nil {
		r.t.Fatal(err)
	}
	r.writeIDs(lacking, func(id event.ID) bool { return id.ID > 100 })
	r.wantCtl(1, []string{"which is not in " + lacking}, "topics", "check", "-replication", "1", "-schema-ids", lacking)
	// In this order nobody meets an id that he does not have yet.
	for _, p := range slices.Concat(r.sinks[:], r.processors[:], []*childProcess{r.gateway, r.redirector}) {
		p.args = append(p.args, "-schema-ids", lacking)
		if _, err := p.terminate(); err != nil {
			r.t.Fatal(err)
		}
		if err := p.start(); err != nil {
			r.t.Fatal(err)
		}
	}
	answered := l.answeredCount()
	r.awaitCount("requests answered with the registry's ids", func() int64 { return l.answeredCount() - answered }, 200)

	r.wantCtl(0, []string{"wrote 20 schema ids"}, apply(url, lacking)...)
	r.wantCtl(0, []string{"topics are as they should be", "clicks carries schema id 106", "clicks carries schema id 6"},
		"topics", "check", "-replication", "1", "-schema-registry", url, "-schema-ids", lacking)
	if mended, err := os.ReadFile(lacking); err != nil || !bytes.Equal(mended, whole) {
		r.t.Errorf("the mended file is %s, %v", mended, err)
	}
	r.wantCtl(0, []string{"no dead letters"}, "dead-letters", "list", "-schema-ids", lacking)
}

// writeIDs leaves those ids in a file that want returns true for, and reads all of them
// from now on.
func (r *rig) writeIDs(file string, want func(event.ID) bool) {
	r.t.Helper()
	text, err := os.ReadFile(file)
	var ids []event.ID
	if err == nil {
		ids, err = event.ParseIDs(text)
	}
	if err == nil {
		r.codec, err = event.NewCodec(ids)
	}
	if err == nil {
		text, err = json.Marshal(slices.DeleteFunc(ids, func(id event.ID) bool { return !want(id) }))
	}
	if err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
