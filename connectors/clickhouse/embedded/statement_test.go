package embedded

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		keyword, format, head, data string
		insert                      bool
	}{
		"":                                    {},
		"select 1":                            {keyword: "SELECT"},
		"-- a\n/* b /* c */ */ # d\nselect 1": {keyword: "SELECT"},
		"select 1 format JSON":                {keyword: "SELECT", format: "JSON"},
		"select 1 FORMAT JSON;":               {keyword: "SELECT", format: "JSON"},
		"select 1 format CSV settings max_threads = 1": {keyword: "SELECT", format: "CSV"},
		"select 1 settings max_threads = 1 format CSV": {keyword: "SELECT", format: "CSV"},
		"select 'x format JSON'":                       {keyword: "SELECT"},
		"select format from t":                         {keyword: "SELECT"},
		"select (select 1 format JSON)":                {keyword: "SELECT"},
		"select 'it''s \\' format' format TSV":         {keyword: "SELECT", format: "TSV"},
		"insert into t format CSV\n1,2\n": {
			keyword: "INSERT",
			insert:  true,
			format:  "CSV",
			head:    "insert into t ",
			data:    "1,2\n",
		},
		"INSERT INTO t (a, format) FORMAT Native": {
			keyword: "INSERT",
			insert:  true,
			format:  "Native",
			head:    "INSERT INTO t (a, format) ",
		},
		"insert into db.t (a) settings async_insert=0 format JSONEachRow {\"a\": 1}": {keyword: "INSERT", insert: true,
			format: "JSONEachRow",
			head:   "insert into db.t (a) settings async_insert=0 ", data: `{"a": 1}`},
		"insert into `a format b` FORMAT RowBinary\r\n\n\n": {
			keyword: "INSERT",
			insert:  true,
			format:  "RowBinary",
			head:    "insert into `a format b` ",
			data:    "\n\n",
		},
		"insert into format format CSV\nx": {
			keyword: "INSERT",
			insert:  true,
			format:  "CSV",
			head:    "insert into format ",
			data:    "x",
		},
		"insert into values values (1)": {
			keyword: "INSERT",
			insert:  true,
			format:  "Values",
			head:    "insert into values ",
			data:    " (1)",
		},
		"insert into t select 1 format Null":                 {keyword: "INSERT"},
		"insert into t with x as (select 1) select * from x": {keyword: "INSERT"},
		"with x as (select 1) insert into t select * from x": {keyword: "INSERT"},
		"with 1 as insert, f(2) as y select y format CSV":    {keyword: "SELECT", format: "CSV"},
		"with 1 as x":              {keyword: "WITH"},
		"insert into t (a) format": {keyword: "INSERT"},
		"insert":                   {keyword: "INSERT"},
	} {
		got := parseStatement(text)
		if got.keyword != want.keyword || got.insert != want.insert || got.format != want.format ||
			got.head != want.head {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
		if got.insert && text[got.dataAt:] != want.data {
			t.Errorf("%q: data is %q, want %q", text, text[got.dataAt:], want.data)
		}
	}
}

func TestInsertHead(t *testing.T) {
	settings := map[string]string{"b": "it's", "a": "1"}
	for text, want := range map[string]string{
		"insert into t format CSV": "insert into `d b`.t \nSETTINGS a = '1', b = 'it\\'s'",
		"insert into table t (x) settings c=3 format CSV": "insert into table `d b`.t (x) settings a = '1', b = " +
			"'it\\'s', c=3 ",
		"insert into o.t -- x\nformat CSV":          "insert into o.t -- x\n\nSETTINGS a = '1', b = 'it\\'s'",
		"insert into `o` . `t` format CSV":          "insert into `o` . `t` \nSETTINGS a = '1', b = 'it\\'s'",
		"insert into function file('x') format CSV": "insert into function file('x') \nSETTINGS a = '1', b = 'it\\'s'",
		"insert into settings format CSV":           "insert into `d b`.settings \nSETTINGS a = '1', b = 'it\\'s'",
	} {
		parsed := parseStatement(text)
		if got := parsed.insertHead("d b", settings); got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", text, got, want)
		}
	}
	parsed := parseStatement("insert into t values (1)")
	if got := parsed.insertHead("d", nil); got != "insert into `d`.t " {
		t.Errorf("without settings %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"insert into t (a) format CSV\n1",
		"select 'a\\",
		"/* /*",
		"insert into `x``y` values",
		"select $$a$$ format X",
		"#!\n-",
		"insert into t format",
		"with as as select into outfile",
		"((]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := parseStatement(text)
		if got.insert && (got.dataAt > len(text) || len(got.head) > got.dataAt || text[:len(got.head)] != got.head ||
			got.format == "") {
			t.Errorf("%q: %+v", text, got)
		}
		if got.insert {
			got.insertHead("d", map[string]string{"a": "b"})
		}
	})
}
