package ingest

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

// endOffsets returns how many records Kafka has in both topics of the gateway, by topic
// and partition.
func (r *rig) endOffsets() map[string]map[int32]int64 {
	r.t.Helper()
	r.flush()
	listed, err := kadm.NewClient(r.producer).ListEndOffsets(r.t.Context(), topic.Conversions, topic.Rejections)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	ends := make(map[string]map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) {
		if ends[o.Topic] == nil {
			ends[o.Topic] = make(map[int32]int64)
		}
		ends[o.Topic][o.Partition] = o.Offset
	})
	return ends
}

// withDryRun writes the member dry_run behind the first brace of a body. Its two values
// are as long, so that what is at fault is at the same byte.
func withDryRun(body, value string) string {
	for len(value) < len("false") {
		value += " "
	}
	return strings.Replace(body, "{", `{"dry_run":`+value+`,`, 1)
}

// validated is an answer of the real call as the dry run gives it.
func validated(real answer) map[string]any {
	var body map[string]any
	if json.Unmarshal(real.body, &body) != nil || real.status != http.StatusAccepted {
		return body
	}
	delete(body, "event_id")
	delete(body, "received_at")
	body["status"] = "valid"
	results, ok := body["results"].([]any)
	if !ok {
		return body
	}
	for _, item := range results {
		if item := item.(map[string]any); item["status"] == "accepted" {
			item["status"] = "valid"
		} else {
			body["status"] = "refused"
		}
	}
	return body
}

// checkDryRun sends a body for real and as a dry run, and compares the answers. The dry
// run writes nothing.
func (r *rig) checkDryRun(c call) {
	r.t.Helper()
	body := c.body
	c.body = withDryRun(body, "false")
	real := r.do(c)
	before := r.endOffsets()
	c.body = withDryRun(body, "true")
	dry := r.do(c)
	if ends := r.endOffsets(); !reflect.DeepEqual(ends, before) {
		r.t.Errorf("%s\nends %v, before the dry run %v", c.body, ends, before)
	}
	wantStatus := real.status
	if wantStatus == http.StatusAccepted {
		wantStatus = http.StatusOK
	}
	var got map[string]any
	if err := json.Unmarshal(dry.body, &got); err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(validated(real), got); dry.status != wantStatus || diff != "" ||
		real.header.Get("Retry-After") != dry.header.Get("Retry-After") {
		r.t.Errorf("%s\n%d %s; the real call: %d %s\n%s", c.body, dry.status, dry.body, real.status, real.body, diff)
	}
}

// A dry run answers what the real call does, in each case of the script of sentences, and
// leaves no record: neither of what is valid nor of what is refused.
func TestDryRunAnswersAsTheRealCall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cases := 0
	datadriven.RunTest(t, "testdata/sentences.txt", func(t *testing.T, d *datadriven.TestData) string {
		body := r.script(d.Input)
		// Another body has no place for dry_run, or breaks off in front of it.
		if d.Cmd == "headers" || !strings.HasPrefix(body, "{") || strings.HasPrefix(body, "{\x00") ||
			strings.Contains(body, "dry_run") {
			return d.Expected
		}
		cases++
		path := toWorkspace("acme")
		if d.Cmd == "batch" {
			path = batchTo("acme")
		}
		r.checkDryRun(call{path: path, body: body})
		return d.Expected
	})
	if cases < 40 {
		t.Errorf("%d cases", cases)
	}
	long := `"` + strings.Repeat("x", 129) + `"`
	r.checkDryRun(call{body: r.event("reason", long)})
	r.checkDryRun(call{path: batchTo("acme"), body: batchOf(r.event("name", long), r.event("order_id", long))})
	for _, token := range []string{mint(t, r.tokens, "globex"), "0ujtsYcgvSTl8PAuAdqWYSMnLOv", "short"} {
		r.checkDryRun(call{body: r.event("click_token", `"`+token+`"`)})
	}
	for _, path := range []string{toWorkspace("acme"), batchTo("acme")} {
		body := r.event()
		if path == batchTo("acme") {
			body = batchOf(body)
		}
		// What is refused before a body is read as JSON.
		r.checkDryRun(call{path: path, body: body, skew: -time.Hour})
		r.checkDryRun(call{path: path, body: body, skew: time.Hour})
		r.checkDryRun(call{path: path, body: body, signer: "globex"})
		r.checkDryRun(call{path: path, body: body, signer: "nobody"})
		r.checkDryRun(call{path: path, body: body, contentType: "text/plain"})
		r.checkDryRun(call{path: strings.Replace(path, "acme", "muted", 1), body: body, signer: "muted"})
		r.checkDryRun(call{path: strings.Replace(path, "acme", "keyless", 1), body: body, signer: "keyless"})
		r.checkDryRun(call{path: strings.Replace(path, "acme", "ghost", 1), body: body, signer: "ghost"})
		r.checkDryRun(call{path: path, body: strings.Repeat(" ", MaxBatchBytes) + body})
	}
	r.checkDryRun(call{path: batchTo("acme"), body: batchOf(slicesOf(`{}`, 501)...)})
}

// The member is signed with the rest. It is one however its name is written, and none
// where it is not beside the members of an event or a batch.
func TestDryRunMember(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := func(path, body, want string) {
		t.Helper()
		before := r.endOffsets()
		a := r.do(call{path: path, body: body})
		if string(a.body) != want || a.status != 200 {
			t.Errorf("%s\n%d %s, want %s", body, a.status, a.body, want)
		}
		if ends := r.endOffsets(); !reflect.DeepEqual(ends, before) {
			t.Errorf("%s: ends %v, before %v", body, ends, before)
		}
	}
	f(toWorkspace("acme"), r.event("dry_run", "true"), `{"status":"valid"}`)
	f(toWorkspace("acme"), strings.Replace(r.event("dry_run", "true"), "dry", `\u0064ry`, 1), `{"status":"valid"}`)
	const item = `{"index":0,"event_id":"e-1","status":"valid"}`
	f(batchTo("acme"), `{"events":[`+r.event()+`],"dry_run":true}`, `{"status":"valid","results":[`+item+`]}`)
	f(batchTo("acme"), `{"dry_r\u0075n":true,"events":[`+r.event()+`,7]}`, `{"status":"refused","results":[`+item+
		`,{"index":1,"event_id":"","status":"refused","code":"invalid_field","detail":"an event is a JSON object"}]}`)

	before := r.endOffsets()
	signed := call{body: r.event()}
	req := r.request(signed)
	tampered := r.request(call{body: withDryRun(signed.body, "true")})
	tampered.Header = req.Header
	if a := r.send(tampered); a.status != 401 || a.Code != "bad_signature" {
		t.Errorf("added on the way: %d %s", a.status, a.body)
	}
	for _, c := range []call{
		{body: r.event("metadata", `{"dry_run":"true"}`)},
		{body: r.event("name", `"\"dry_run\":true"`)},
		{body: r.event("dry_run", "false")},
		{path: batchTo("acme"), body: batchOf(r.event("metadata", `{"dry_run":"true"}`))},
	} {
		if a := r.do(c); a.status != 202 {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if a := r.do(call{body: r.event("dryRun", "true")}); a.status != 400 || a.Field != "dryRun" {
		t.Errorf("another name: %d %s", a.status, a.body)
	}
	recorded := int64(0)
	for partition, end := range r.endOffsets()[topic.Conversions] {
		recorded += end - before[topic.Conversions][partition]
	}
	if recorded != 4 {
		t.Errorf("%d events on record, want 4", recorded)
	}
}

// A dry run is answered while Kafka is away, and by the limits of a real call; it is in
// no count of events.
func TestDryRunAwayAndOverTheLimit(t *testing.T) {
	t.Parallel()
	cfg := testConfig()
	cfg.Rate, cfg.Burst = 0.001, MaxBatchEvents
	r := newRigOn(t, []string{"127.0.0.1:1"}, cfg, topic.OneEpoch(kafkatest.Partitions))
	one, many := withDryRun(r.event(), "true"), withDryRun(batchOf(slicesOf(r.event(), 499)...), "true")
	if a := r.do(call{body: one}); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.do(call{path: batchTo("acme"), body: many}); a.status != 200 || len(a.Results) != 499 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, c := range []call{{body: one}, {path: batchTo("acme"), body: many}} {
		if a := r.do(c); a.status != 429 || a.Code != "rate_limited" || a.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	for name, want := range map[string]float64{
		"requests_total":            4,
		"events_total":              0,
		"events_refused_total":      0,
		"workspace_accepted_total":  0,
		"workspace_refused_total":   0,
		"rejections_lost_total":     0,
		"rejections_recorded_total": 0,
	} {
		if got := r.metric("partners_ingest_" + name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if err := r.handler.Drain(ctx); err != nil {
		t.Errorf("there is nothing to write: %v", err)
	}
}

// Refusals of events are counted by workspace and code: of a batch that is refused as a
// whole, all its events; nothing that was not genuinely signed.
func TestWorkspaceMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do(call{path: batchTo("acme"), body: batchOf(r.event(), "{}", `{"a":1,"a":2}`, r.event())})
	r.do(call{path: batchTo("acme"), body: `{"events":[{},{},{}],"x":1}`})
	r.do(call{path: batchTo("acme"), body: batchOf(slicesOf(`{}`, 501)...)})
	r.do(call{path: batchTo("acme"), body: "7"})
	r.do(call{body: "{}"})
	r.do(call{body: r.event()})
	r.do(call{signer: "globex", body: r.event()})
	r.do(call{skew: -time.Hour, body: r.event()})
	r.do(call{signer: "ghost", path: toWorkspace("ghost"), body: "{"})
	r.do(call{signer: "muted", path: toWorkspace("muted"), body: "{"})
	r.do(call{body: withDryRun("{}", "true")})
	r.do(call{path: batchTo("acme"), body: withDryRun(batchOf("{}"), "true")})
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if name, ok := strings.CutPrefix(f.GetName(), "partners_ingest_workspace_"); ok {
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{
		"accepted_total acme":               3,
		"refused_total invalid_field acme":  3, // one in a batch, one batch that is none, one alone
		"refused_total malformed_json acme": 1,
		"refused_total unknown_field acme":  3,
		"refused_total too_large acme":      501,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
