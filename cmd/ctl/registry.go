package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// registry is a Confluent-compatible schema registry. Only ctl calls one; daemons read
// schema ids from a file.
type registry struct{ cl *sr.Client }

// subjectSchema is one of our schemas and its registration.
type subjectSchema struct {
	event.Schema
	subject string // of the registry
	id      int    // the registry's; 0 if not registered
}

func (s subjectSchema) String() string {
	return fmt.Sprintf("schema %s version %d", s.Record, s.Version)
}

func (s subjectSchema) avroSchema() sr.Schema { return sr.Schema{Schema: s.JSON, Type: sr.TypeAvro} }

func newRegistry(url string) (*registry, error) {
	cl, err := sr.NewClient(sr.URLs(url))
	if err != nil {
		return nil, usagef("-schema-registry: %w", err)
	}
	return &registry{cl}, nil
}

// topicsBySchema returns the topic that holds the records of each schema.
func topicsBySchema() map[string]string {
	return map[string]string{
		"Click":      topic.Clicks,
		"Conversion": topic.Conversions,
		"Outcome":    topic.Outcomes,
		"Progress":   topic.Progress,
		"Rejection":  topic.Rejections,
	}
}

// planRegistration looks up all schemas. It checks that missing ones are compatible
// with the newest version of their subject. It changes nothing. The plan has the order
// of the versions, in which a fresh registry gives the built-in ids.
func (r *registry) planRegistration(ctx context.Context, cfg kafka.Config) (plan []subjectSchema, err error) {
	var refused []error
	schemas := event.Schemas()
	slices.SortStableFunc(schemas, func(a, b event.Schema) int { return a.Version - b.Version })
	for _, schema := range schemas {
		name, ok := topicsBySchema()[schema.Record]
		if !ok {
			return nil, fmt.Errorf("no topic is known for schema %s", schema.Record)
		}
		s := subjectSchema{Schema: schema, subject: cfg.Topic(name) + "-value"}
		found, err := r.cl.LookupSchema(ctx, s.subject, s.avroSchema())
		switch {
		case err == nil:
			s.id = found.ID
		case isNotFound(err):
			refused = append(refused, r.checkCompatible(ctx, s))
		default:
			return nil, fmt.Errorf("-schema-registry: looking up %s under %s: %w", s, s.subject, err)
		}
		plan = append(plan, s)
	}
	return plan, errors.Join(refused...)
}

func (r *registry) checkCompatible(ctx context.Context, s subjectSchema) error {
	const latest = -1
	result, err := r.cl.CheckCompatibility(ctx, s.subject, latest, s.avroSchema())
	switch {
	case isNotFound(err): // the subject's first schema
		return nil
	case err != nil:
		return fmt.Errorf("-schema-registry: checking %s against %s: %w", s, s.subject, err)
	case !result.Is:
		return fmt.Errorf("-schema-registry: %s is not compatible with the newest version of %s: %s",
			s, s.subject, strings.Join(append(result.Messages, "nothing was changed"), "; "))
	}
	return nil
}

func isNotFound(err error) bool {
	var response *sr.ResponseError
	return errors.As(err, &response) && response.StatusCode == http.StatusNotFound
}

// registerMissing registers the schemas that have no id yet, and writes all ids to
// file. Without a file, the ids must equal the built-in ones. used is whether our topics
// have ever held a record in Avro.
func (r *registry) registerMissing(
	ctx context.Context, plan []subjectSchema, file string, used bool) (lines []string, err error) {
	var ids []event.ID
	for _, s := range plan {
		if s.id == 0 {
			if s.id, err = r.cl.RegisterSchema(ctx, s.subject, s.avroSchema(), -1, -1); err != nil {
				return lines, fmt.Errorf("-schema-registry: registering %s under %s: %w", s, s.subject, err)
			}
			lines = append(lines, fmt.Sprintf("registered %s under %s with id %d", s, s.subject, s.id))
		}
		ids = append(ids, event.ID{ID: uint32(s.id), Record: s.Record, Version: s.Version})
	}
	if file == "" {
		if !slices.Equal(ids, event.DefaultIDs()) {
			return lines, errors.New("-schema-ids: the registry's ids are not the built-in ones: name a file for " +
				"them, and give it to all daemons")
		}
		return lines, nil
	}
	count, err := writeIDs(file, ids, used)
	if count > 0 {
		lines = append(lines, fmt.Sprintf("wrote %d schema ids to %s: give this file to all daemons, "+
			"to the sinks first, then to the processors, the gateways and the redirectors", count, file))
	}
	return lines, err
}

// writeIDs adds ids to a lock file, and returns how many the file then has, or 0 if it
// is as it was. Ids that the file has already stay before the new ones: their records
// must stay readable, and writers use the last id of a record. A new file has the
// built-in ids first: until now the daemons have written with them.
func writeIDs(file string, ids []event.ID, used bool) (count int, err error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("-schema-ids: %w", err)
	}
	have := event.DefaultIDs()
	isNew := len(bytes.TrimSpace(old)) == 0
	if !isNew {
		if have, err = event.ParseIDs(old); err != nil {
			return 0, fmt.Errorf("-schema-ids %s: %w", file, err)
		}
	}
	all, err := mergeIDs(event.WithBuiltIn(have), ids)
	switch {
	case err != nil && !isNew:
		return 0, fmt.Errorf("-schema-ids %s: in the file %w", file, err)
	case err != nil && used:
		return 0, fmt.Errorf("-schema-ids %s: among the built-in ids, with which the topics' records are written, "+
			"%w. Nothing was written to the file. Use a registry that has not given these ids yet, or import our "+
			"schemas into it in mode IMPORT under the built-in ids", file, err)
	case err != nil: // no record has a built-in id
		all = ids
	}
	if _, err := event.NewCodec(all); err != nil {
		return 0, fmt.Errorf("-schema-ids %s: %w", file, err)
	}
	text, err := encodeLockFile(all)
	if err != nil || bytes.Equal(old, text) {
		return 0, err
	}
	if err := renameio.WriteFile(file, text, 0o644); err != nil {
		return 0, fmt.Errorf("-schema-ids: %w", err)
	}
	return len(all), nil
}

// mergeIDs returns the ids of have that registered lacks, then registered. No id may
// mean two records.
func mergeIDs(have, registered []event.ID) ([]event.ID, error) {
	var all []event.ID
	for _, id := range have {
		i := slices.IndexFunc(registered, func(x event.ID) bool { return x.ID == id.ID })
		if i >= 0 && registered[i] != id {
			return nil, fmt.Errorf("id %d is %s version %d, and in the registry %s version %d: records with this id "+
				"would be ambiguous", id.ID, id.Record, id.Version, registered[i].Record, registered[i].Version)
		}
		if i < 0 {
			all = append(all, id)
		}
	}
	return append(all, registered...), nil
}

// haveHeldRecords returns whether a record was ever written to a topic whose records
// have schema ids. Deleted ones count: journeys keep copies of them.
func haveHeldRecords(ctx context.Context, cl *kgo.Client, cfg kafka.Config) (bool, error) {
	var names []string
	for _, name := range topicsBySchema() {
		names = append(names, cfg.Topic(name))
	}
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, names...)
	if err = errors.Join(err, ends.Error()); err != nil {
		return false, fmt.Errorf("listing the ends of the topics with schema ids: %w", err)
	}
	used := false
	ends.Each(func(o kadm.ListedOffset) { used = used || o.Offset > 0 })
	return used, nil
}

// encodeLockFile returns a lock file with one id per line.
func encodeLockFile(ids []event.ID) ([]byte, error) {
	lines := make([]string, len(ids))
	for i, id := range ids {
		b, err := json.Marshal(id)
		if err != nil {
			return nil, fmt.Errorf("writing schema ids: %w", err)
		}
		lines[i] = "  " + string(b)
	}
	return []byte("[\n" + strings.Join(lines, ",\n") + "\n]\n"), nil
}

// checkRegistry returns an error for each schema that is not registered, and for each
// whose id is not in file.
func checkRegistry(ctx context.Context, url string, cfg kafka.Config, file string) error {
	reg, err := newRegistry(url)
	if err != nil {
		return err
	}
	plan, err := reg.planRegistration(ctx, cfg)
	if err != nil {
		return err
	}
	ids, where, err := readIDs(file)
	if err != nil {
		return err
	}
	var problems []error
	for _, s := range plan {
		switch {
		case s.id == 0:
			problems = append(problems, fmt.Errorf("%s is not registered under %s: run `ctl topics apply`",
				s, s.subject))
		case !slices.Contains(ids, event.ID{ID: uint32(s.id), Record: s.Record, Version: s.Version}):
			problems = append(problems, fmt.Errorf("%s has id %d in the registry and not in %s: run `ctl topics "+
				"apply` with -schema-ids", s, s.id, where))
		}
	}
	return errors.Join(problems...)
}
