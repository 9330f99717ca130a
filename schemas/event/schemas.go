package event

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
)

// The schemas, one file for each version of a record: click.v1.avsc.
//
//go:embed *.avsc
var schemaFiles embed.FS

// Schema is one version of a record's Avro schema.
type Schema struct {
	Record  string // such as Click
	Version int    // from 1
	JSON    string
}

// Schemas lists every version of every record, by record, oldest first. Append-only: a
// version that was once written must stay readable.
func Schemas() []Schema {
	files, err := schemaFiles.ReadDir(".")
	if err != nil {
		panic("event: built-in schemas: " + err.Error())
	}
	var schemas []Schema
	for _, file := range files {
		schema, err := readSchema(file.Name())
		if err != nil {
			panic("event: built-in schema " + file.Name() + ": " + err.Error())
		}
		schemas = append(schemas, schema)
	}
	slices.SortFunc(schemas, func(a, b Schema) int {
		return cmp.Or(strings.Compare(a.Record, b.Record), cmp.Compare(a.Version, b.Version))
	})
	return schemas
}

// readSchema reads a schema, whose record and version are in its file's name.
func readSchema(name string) (s Schema, err error) {
	record, version, _ := strings.Cut(name, ".v")
	s.Record = strings.ToUpper(record[:1]) + record[1:]
	if _, err := fmt.Sscanf(version, "%d.avsc", &s.Version); err != nil {
		return s, err
	}
	text, err := schemaFiles.ReadFile(name)
	s.JSON = string(text)
	return s, err
}
