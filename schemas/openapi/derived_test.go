package openapi

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/statement"
)

var rewrite = flag.Bool("rewrite", false, "write the parts of the documents that derive from the ledger and the lists")

// Parts of the documents follow from what is declared elsewhere: the columns of an
// exported conversion and of a statement, the types, verdicts and reviews of events. `go test
// ./schemas/openapi -rewrite` writes them again.
func TestDerivedParts(t *testing.T) {
	const (
		outcomes    = "/paths/~1v1~1workspaces~1{workspace}~1outcomes/get/responses/200/content/application~1json"
		outcomesCSV = "/paths/~1v1~1workspaces~1{workspace}~1outcomes.csv/get/responses/200"
		parameters  = "/components/parameters/"

		statements    = "/paths/~1v1~1workspaces~1{workspace}~1statement/get/responses/200/content/application~1json"
		statementsCSV = "/paths/~1v1~1workspaces~1{workspace}~1statement.csv/get/responses/200"
	)
	checkDerived(t, "report.json", []derived{
		{"/components/schemas/Conversion",
			rowSchema("A judged event in the shape in which it is exported.", ledger.Columns())},
		{outcomes + "/examples/answer/value/rows", []object{rowExample(t, ledger.Columns())}},
		{outcomesCSV + "/description", csvDescription("; null is empty, flags are joined by |", ledger.Columns())},
		{outcomesCSV + "/content/text~1csv; charset=utf-8/examples/answer/value", csvExample(t, ledger.Columns())},
		{"/components/schemas/StatementAccount",
			rowSchema("One partner in one currency.", statement.Columns())},
		{statements + "/examples/answer/value/rows", []object{rowExample(t, statement.Columns())}},
		{statementsCSV + "/description", csvDescription("", statement.Columns())},
		{statementsCSV + "/content/text~1csv; charset=utf-8/examples/answer/value", csvExample(t, statement.Columns())},
		{parameters + "type/schema/items/enum", event.Types()},
		{parameters + "verdict/schema/items/enum", event.Verdicts()},
		{parameters + "review/schema/items/enum", event.Reviews()},
	})
	checkDerived(t, "events.json", []derived{
		{"/components/schemas/Event/properties/type/enum", event.Types()},
	})
}

// derived is a part of a document, by its JSON pointer, and what it must be.
type derived struct {
	pointer string
	want    any
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in order.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	separator := "{"
	for _, m := range o {
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		out.WriteString(separator + strconv.Quote(m.name) + ":")
		out.Write(value)
		separator = ","
	}
	out.WriteString("}")
	return out.Bytes(), nil
}

// marshal is json.Marshal without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(out.Bytes()), err
}

func rowSchema(description string, columns []ledger.Column) object {
	properties := object{}
	for _, c := range columns {
		properties = append(properties, member{c.Name, columnSchema(c)})
	}
	return object{
		{"type", "object"},
		{"description", description},
		{"required", namesOf(columns)},
		{"properties", properties},
	}
}

func namesOf(columns []ledger.Column) (names []string) {
	for _, c := range columns {
		names = append(names, c.Name)
	}
	return names
}

func columnSchema(c ledger.Column) (schema object) {
	kinds := map[ledger.Kind]string{ledger.List: "array", ledger.Integer: "integer", ledger.Bool: "boolean"}
	kind := kinds[c.Kind]
	if kind == "" {
		kind = "string"
	}
	if c.Nullable {
		schema = append(schema, member{"type", []string{kind, "null"}})
	} else {
		schema = append(schema, member{"type", kind})
	}
	switch c.Kind {
	case ledger.Time:
		schema = append(schema, member{"format", "date-time"})
	case ledger.List:
		schema = append(schema, member{"items", object{{"type", "string"}}})
	}
	if c.Min != nil {
		schema = append(schema, member{"minimum", *c.Min})
	}
	if c.Max != nil {
		schema = append(schema, member{"maximum", *c.Max})
	}
	if c.Values != nil {
		schema = append(schema, member{"enum", c.Values})
	}
	if c.Doc != "" {
		schema = append(schema, member{"description", c.Doc})
	}
	return schema
}

// rowExample is the example as the report answers it.
func rowExample(t *testing.T, columns []ledger.Column) (example object) {
	t.Helper()
	for _, c := range columns {
		var value any = c.Example
		var err error
		switch c.Kind {
		case ledger.Time:
			value, err = time.Parse(time.RFC3339, c.Example)
		case ledger.Integer:
			value, err = strconv.ParseInt(c.Example, 10, 64)
		case ledger.Bool:
			value, err = strconv.ParseBool(c.Example)
		case ledger.List:
			value = []string{}
			if c.Example != "" {
				value = strings.Split(c.Example, "|")
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		example = append(example, member{c.Name, value})
	}
	return example
}

func csvDescription(cells string, columns []ledger.Column) string {
	return "RFC 4180 in UTF-8, lines end with \\n, a header always" + cells + ". A text " +
		"that a spreadsheet would run as a formula has a ' in front, and so has each part of it behind , ; TAB | " +
		"or a line's end. Columns: " + strings.Join(namesOf(columns), ", ") + "."
}

func csvExample(t *testing.T, columns []ledger.Column) string {
	t.Helper()
	var cells []string
	for _, c := range columns {
		cells = append(cells, c.Example)
	}
	var out strings.Builder
	w := csv.NewWriter(&out)
	if err := w.WriteAll([][]string{namesOf(columns), cells}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// checkDerived compares parts of a file with what they must be, or writes them.
func checkDerived(t *testing.T, file string, parts []derived) {
	t.Helper()
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := false
	for _, part := range parts {
		value, err := marshal(part.want)
		if err != nil {
			t.Fatal(err)
		}
		start, end := findPointer(t, file, document, part.pointer)
		line := document[bytes.LastIndexByte(document[:start], '\n')+1 : start]
		want := jsontext.Value(value)
		if err := want.Indent(
			jsontext.WithIndentPrefix(string(line[:len(line)-len(bytes.TrimLeft(line, " "))])),
			jsontext.WithIndent("  "),
		); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(document[start:end], want) {
			continue
		}
		changed = true
		if !*rewrite {
			t.Errorf("%s: %s (-rewrite writes it) -is +wanted:\n%s",
				file, part.pointer, cmp.Diff(string(document[start:end]), string(want)))
		}
		document = append(append(bytes.Clone(document[:start]), want...), document[end:]...)
	}
	if *rewrite && changed {
		if err := os.WriteFile(file, document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// findPointer finds the value at a JSON pointer: document[start:end].
func findPointer(t *testing.T, file string, document []byte, pointer string) (start, end int) {
	t.Helper()
	d := jsontext.NewDecoder(bytes.NewReader(document))
	for {
		before := d.StackPointer()
		_, err := d.ReadToken()
		if err != nil {
			t.Fatalf("%s has no %s: %v", file, pointer, err)
		}
		// The pointer of a member's name is that of its value, which follows.
		if kind := d.PeekKind(); string(d.StackPointer()) == pointer && before != d.StackPointer() &&
			kind != '}' && kind != ']' {
			value, err := d.ReadValue()
			if err != nil {
				t.Fatal(err)
			}
			end = int(d.InputOffset())
			return end - len(value), end
		}
	}
}
