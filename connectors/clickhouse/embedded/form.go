package embedded

import (
	"cmp"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxParts limits the fields and files of a form.
	maxParts = 1000
	// partBytes is what a part counts for beside its header and content.
	partBytes = 1 << 10
)

// externalTable is a table that comes with a request and ends with it: a file of a
// multipart form.
type externalTable struct {
	name, structure, format string
	data                    []byte
}

// readForm reads a body that is a multipart form: its fields become parameters, its
// files external tables. Any other body stays unread.
func readForm(r *http.Request, values url.Values) ([]externalTable, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "multipart/form-data" {
		return nil, nil
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, exception{badArguments, "reading the form: " + err.Error()}
	}
	var tables []externalTable
	left := int64(maxStatement)
	for n := 1; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, exception{badArguments, "reading the form: " + err.Error()}
		}
		if n > maxParts {
			return nil, exception{requestTooLarge, fmt.Sprintf("a form has at most %d parts", maxParts)}
		}
		left -= partBytes + int64(len(part.Header.Get("Content-Disposition")))
		data, err := io.ReadAll(io.LimitReader(part, max(left+1, 0)))
		if err != nil {
			return nil, readError(err)
		}
		if left -= int64(len(data)); left < 0 {
			return nil, exception{requestTooLarge, fmt.Sprintf("a form has at most %d bytes", maxStatement)}
		}
		if part.FileName() == "" {
			setDefault(values, part.FormName(), string(data))
		} else {
			tables = append(tables, externalTable{name: cmp.Or(part.FormName(), "_data"), data: data})
		}
	}
	for i := range tables {
		if err := tables[i].takeParameters(values); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// takeParameters finds a table's format and columns among the parameters, and removes
// them from there.
func (t *externalTable) takeParameters(values url.Values) error {
	t.format = cmp.Or(values.Get(t.name+"_format"), "TabSeparated")
	t.structure = values.Get(t.name + "_structure")
	if types := values.Get(t.name + "_types"); t.structure == "" && types != "" {
		var columns []string
		for i, kind := range strings.Split(types, ",") {
			columns = append(columns, fmt.Sprintf("_%d %s", i+1, kind))
		}
		t.structure = strings.Join(columns, ", ")
	}
	if t.structure == "" {
		return exception{badArguments, fmt.Sprintf("Property %q of the external table is missing: its columns",
			t.name+"_structure")}
	}
	for _, suffix := range []string{"_format", "_structure", "_types"} {
		values.Del(t.name + suffix)
	}
	return nil
}

// fillExternal makes a request's external tables on the session, as temporary ones, and
// returns how many it has created: a name may be that of a table of the session.
func (s *session) fillExternal(tables []externalTable) (created int, err error) {
	for _, t := range tables {
		name := quoteIdentifier(t.name)
		if err := s.execStatement("CREATE TEMPORARY TABLE " + name + " (" + t.structure + ")"); err != nil {
			return created, err
		}
		created++
		chunk := func() ([]byte, error) { return t.data, io.EOF }
		if _, err := s.insertFrom("INSERT INTO "+name, t.format, nil, chunk); err != nil {
			return created, err
		}
	}
	return created, nil
}
