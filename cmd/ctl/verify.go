package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // the workspace's timezone, where the system knows none

	"github.com/google/renameio/v2"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// errNotTheRules ends a verification that found rows that are not what the rules say.
var errNotTheRules = errors.New("the ledger is not what the rules say; what differs is above")

// errNothingProved ends a verification that compared no row: it must not be taken for one
// that found everything right.
var errNothingProved = errors.New("no row could be derived again: nothing is proved")

// verifyFlags are the flags of verify.
type verifyFlags struct {
	kafka      kafka.Config
	clickhouse clickhouse.Config
	schemaIDs  string // file with the registry's schema ids; empty: built-in ids
	filters    export.Filters
	manifest   string // of the export that is compared; empty: none
	bundle     string // file to write instead of verifying
	fromBundle string // file to verify instead of the topics

	unknown        bool // the catalog does not have the workspace
	unknownPartner bool // the catalog does not have the workspace's partner
}

func verifyCommands() []command {
	const summary = "derives every row of a workspace again from clicks and conversions and compares it with " +
		"outcomes, ClickHouse and an export. Exit status: 0 equal, 1 differences, nothing to compare, or failed, " +
		"2 wrong command line"
	return []command{{"verify", "", summary, defineVerifyFlags}}
}

func defineVerifyFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	v := &verifyFlags{kafka: kafka.DefaultConfig()}
	v.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &v.kafka)
	daemon.SchemaIDsFlag(fs, &v.schemaIDs)
	fs.StringVar(&v.clickhouse.DSN, "clickhouse", "", "`DSN` of the warehouse, which is compared, too, and knows of "+
		"a grace or lives that were changed long ago; pass a DSN with a password in the environment variable")
	daemon.ClickHouseCAFlag(fs, &v.clickhouse)
	fs.StringVar(&v.filters.Workspace, "workspace", "", "`id` (required, but with -from-bundle)")
	fs.StringVar(&v.filters.From, "from", "", "first `day`, of occurred_at in the workspace's timezone; all days "+
		"before too if empty")
	fs.StringVar(&v.filters.To, "to", "", "last `day`, inclusive; all days after too if empty")
	fs.StringVar(&v.manifest, "manifest", "", "`NAME.manifest.json` of an export, which is compared, too; NAME.csv "+
		"is beside it")
	fs.StringVar(&v.bundle, "bundle", "", "`file` to write instead of verifying: what a partner needs to check his "+
		"rows offline, the records of his tokens alone")
	fs.StringVar(&v.filters.Partner, "partner", "", "`id` of the partner of -bundle")
	fs.StringVar(&v.fromBundle, "from-bundle", "", "`file` written by -bundle: verifies it, and needs neither "+
		"-brokers nor -clickhouse")
	return v.run
}

func (v *verifyFlags) run(ctx context.Context, c *call) error {
	if err := v.checkFlags(); err != nil {
		return err
	}
	codec, err := daemon.Codec(v.schemaIDs)
	if err != nil {
		return usageError{err}
	}
	if v.fromBundle != "" {
		return v.verifyBundle(ctx, c, codec)
	}
	if err := awaitBrokers(ctx, v.kafka); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	source, err := verify.OpenTopics(ctx, v.kafka, codec, log)
	if err != nil {
		return v.kafka.Explain(err)
	}
	if err := v.readWorkspace(ctx, log); err != nil {
		return v.kafka.Explain(err)
	}
	cfg := verify.Config{Workspace: v.filters.Workspace, Progress: c.progressLog()}
	if cfg.From, cfg.To, err = v.instants(); err != nil {
		return err
	}
	if cfg.Export, err = v.readManifest(); err != nil {
		return err
	}
	if v.clickhouse.DSN != "" {
		wh, err := clickhouse.Open(ctx, v.clickhouse, log)
		if err != nil {
			return err
		}
		defer wh.Close()
		if cfg.Table, err = openTable(ctx, wh, v.filters.Workspace, source); err != nil {
			return err
		}
	}
	if v.bundle != "" {
		return v.writeBundle(ctx, c, cfg, source, codec)
	}
	return v.verify(ctx, c, cfg, source, codec)
}

// checkFlags reports flags that do not go together.
func (v *verifyFlags) checkFlags() error {
	f := v.filters
	for name, day := range map[string]string{"from": f.From, "to": f.To} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return usagef("-%s: %q is not a day such as 2026-03-14", name, day)
		}
	}
	switch {
	case f.From != "" && f.To != "" && f.To < f.From:
		return usagef("-to: %s is before -from, %s", f.To, f.From)
	case v.fromBundle != "" && f.Workspace+f.From+f.To+f.Partner+v.bundle != "":
		return usagef("-from-bundle: the bundle says what is verified: leave -workspace, -from, -to, -partner and " +
			"-bundle out")
	case v.fromBundle != "" && v.clickhouse.DSN != "":
		return usagef("-from-bundle: a bundle is verified without a warehouse: leave -clickhouse, or its environment " +
			"variable, out")
	case v.fromBundle != "":
		return nil
	case f.Workspace == "":
		return usagef("-workspace is required")
	case v.bundle != "" && f.Partner == "":
		return usagef("-partner is required: a bundle has the records of one partner's tokens")
	case v.bundle == "" && f.Partner != "":
		return usagef("-partner is for -bundle: all partners of the workspace are verified")
	case v.bundle != "" && v.manifest != "":
		return usagef("-bundle writes a file and compares nothing: leave -manifest out")
	case v.manifest != "" && f.From+f.To != "":
		return usagef("-manifest has days of its own: leave -from and -to out")
	}
	if v.clickhouse.DSN != "" {
		return checkDSN(v.clickhouse)
	}
	return nil
}

// instants are the bounds of the days; zero times where a flag is empty.
func (v *verifyFlags) instants() (from, to time.Time, err error) {
	f := v.filters
	if f.From == "" && f.To == "" {
		return from, to, nil
	}
	if f.From == "" {
		f.From = f.To
	}
	if f.To == "" {
		f.To = f.From
	}
	if from, to, err = export.Instants(f); err != nil {
		return from, to, err
	}
	if v.filters.From == "" {
		from = time.Time{}
	}
	if v.filters.To == "" {
		to = time.Time{}
	}
	return from, to, nil
}

// readWorkspace reads the workspace's timezone from the catalog, UTC if it names none,
// and whether the catalog has the workspace and the partner.
func (v *verifyFlags) readWorkspace(ctx context.Context, log *slog.Logger) error {
	records, err := kafka.ReadAll(ctx, v.kafka, log, v.kafka.Topic(topic.Catalog))
	if err != nil {
		return err
	}
	v.unknown = true
	v.unknownPartner = v.filters.Partner != ""
	for _, r := range records {
		if string(r.Key) == "partner/"+v.filters.Workspace+"/"+v.filters.Partner && len(r.Value) > 0 {
			v.unknownPartner = false
		}
		if string(r.Key) != "workspace/"+v.filters.Workspace || len(r.Value) == 0 {
			continue
		}
		var workspace struct {
			Timezone string `json:"timezone"`
		}
		if err := json.Unmarshal(r.Value, &workspace); err != nil {
			return fmt.Errorf("reading the workspace's timezone: catalog offset %d: %w", r.Offset, err)
		}
		v.filters.Timezone = workspace.Timezone
		v.unknown = false
	}
	v.filters.Timezone = cmp.Or(v.filters.Timezone, "UTC")
	return nil
}

// readManifest reads the manifest of the export that is compared; nil if there is none.
func (v *verifyFlags) readManifest() (*verify.Export, error) {
	if v.manifest == "" {
		return nil, nil
	}
	name, ok := strings.CutSuffix(v.manifest, ".manifest.json")
	if !ok {
		return nil, usagef("-manifest: %q is not NAME.manifest.json", v.manifest)
	}
	m, err := export.ReadManifest(v.manifest)
	if err != nil {
		return nil, fmt.Errorf("-manifest: %w", err)
	}
	if m.Format != "" {
		return nil, usagef("-manifest: it is of a %s file, and only a CSV is verified", m.Format)
	}
	if v.filters.Workspace != "" && m.Filters.Workspace != v.filters.Workspace {
		return nil, usagef("-manifest: it is of workspace %q", m.Filters.Workspace)
	}
	x := &verify.Export{
		File:    name + ".csv",
		SHA256:  m.SHA256,
		Rows:    m.Rows,
		Version: m.SchemaVersion,
		Raw:     m.Raw,
		Partner: m.Filters.Partner,
		Program: m.Filters.Program,
		Link:    m.Filters.Link,
		Type:    m.Filters.Type,
		Verdict: m.Filters.Verdict,
		Review:  m.Filters.Review,
		AsOf:    signedOffsets(m.AsOf.Outcomes),
	}
	if m.Since != nil {
		x.Since = signedOffsets(m.Since.Outcomes)
	}
	if x.From, x.To, err = export.Instants(m.Filters); err != nil {
		return nil, fmt.Errorf("-manifest: %w", err)
	}
	return x, nil
}

func signedOffsets(ends map[uint32]uint64) map[int32]int64 {
	out := make(map[int32]int64)
	for p, end := range ends {
		out[int32(p)] = int64(end)
	}
	return out
}

// writeBundle writes the file of -bundle, whole or not at all.
func (v *verifyFlags) writeBundle(ctx context.Context, c *call, cfg verify.Config, source *verify.Source,
	codec *event.Codec) error {
	file, err := renameio.NewPendingFile(v.bundle, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("-bundle: %w", err)
	}
	defer file.Cleanup()
	counts, err := verify.WriteBundle(ctx, verify.BundleConfig{
		Workspace: v.filters.Workspace,
		Partner:   v.filters.Partner,
		From:      cfg.From,
		To:        cfg.To,
		MadeAt:    time.Now(),
		Progress:  cfg.Progress,
	}, source, codec, file)
	if err != nil {
		return v.kafka.Explain(err)
	}
	if v.unknownPartner && counts.Clicks+counts.Outcomes == 0 {
		return fmt.Errorf("-partner %q: neither the catalog nor the log has it in workspace %q: nothing is written",
			v.filters.Partner, v.filters.Workspace)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("-bundle: %w", err)
	}
	c.say("wrote %s: %d clicks, %d events, %d rows of partner %s; check it with ctl verify -from-bundle",
		v.bundle, counts.Clicks, counts.Conversions, counts.Outcomes, v.filters.Partner)
	return nil
}

// verifyBundle verifies the file of -from-bundle.
func (v *verifyFlags) verifyBundle(ctx context.Context, c *call, codec *event.Codec) error {
	file, err := os.Open(v.fromBundle)
	if err != nil {
		return fmt.Errorf("-from-bundle: %w", err)
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("-from-bundle: %w", err)
	}
	b, err := verify.OpenBundle(file, size, codec)
	if err != nil {
		return fmt.Errorf("-from-bundle: %w", err)
	}
	h := &b.Header
	v.filters.Workspace = h.Workspace
	cfg := verify.Config{Workspace: h.Workspace, From: h.From, To: h.To, Progress: c.progressLog()}
	if cfg.Export, err = v.readManifest(); err != nil {
		return err
	}
	if cfg.Export != nil {
		if err := h.CheckExport(cfg.Export); err != nil {
			return usageError{err}
		}
	}
	c.say("bundle of partner %s, made %s", h.Partner, h.MadeAt.Format(time.RFC3339))
	return v.verify(ctx, c, cfg, b.Source, codec)
}

func (v *verifyFlags) verify(ctx context.Context, c *call, cfg verify.Config, source *verify.Source,
	codec *event.Codec) error {
	report, err := verify.Run(ctx, cfg, source, codec)
	if err != nil {
		return v.kafka.Explain(err)
	}
	if v.unknown && report.Events == 0 && report.Rows() == 0 {
		return fmt.Errorf("-workspace %q: neither the catalog nor the log has it", cfg.Workspace)
	}
	c.printVerification(cfg, v.filters.Timezone, report)
	if source.Unjudged > 0 {
		c.say("%d events, of all workspaces, are not judged yet and not verified", source.Unjudged)
	}
	if source.Unread > 0 {
		c.say("%d records of outcomes, of all workspaces, are in partitions without progress, and not verified",
			source.Unread)
	}
	switch {
	case !report.OK():
		return errNotTheRules
	case report.Equal() == 0:
		return errNothingProved
	}
	return nil
}

// progressLog logs progress on stderr, at most every few seconds.
func (c *call) progressLog() func(step string, done, of int64) {
	const interval = 5 * time.Second
	last := time.Now()
	return func(step string, done, of int64) {
		if time.Since(last) >= interval {
			last = time.Now()
			c.log.Info("verifying", "step", step, "done", done, "of", of)
		}
	}
}
