package ddl

import (
	"embed"
	"io/fs"
	"regexp"
	"strings"
)

//go:embed *.sql
var migrations embed.FS

//go:embed roles/roles.sql
var roles string

// MinDeduplicationWindow is the smallest deduplication window, in blocks, with which a
// table may be used. The migrations set more.
const MinDeduplicationWindow = 10_000

// Roles that Roles makes.
const (
	// RoleWriter is for the sink and for ctl.
	RoleWriter = "partners_writer"
	// RoleReader reads the workspaces whose RoleWorkspace is granted beside it, and no
	// others.
	RoleReader = "partners_reader"
	// RoleEveryWorkspace reads all workspaces: for report and export, which check
	// rights themselves, and for operators.
	RoleEveryWorkspace = "partners_every_workspace"
	// RoleWorkspace is the prefix of a role that reads one workspace; the workspace's
	// id follows.
	RoleWorkspace = "partners_workspace_"
)

// Migrations are the numbered files, at the root of the returned file system.
func Migrations() fs.FS { return migrations }

// identifier is what a database may be called.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Roles returns the statements that make the roles and their row policies for a
// database, to be run after Migrations, in order. All of them can be run again. They
// need access management, which an embedded ClickHouse lacks (it answers with code 497,
// ACCESS_DENIED) and does not need: it has one user. A name that is no identifier gives
// no statements.
func Roles(database string) []string {
	if !identifier.MatchString(database) {
		return nil
	}
	var out []string
	for _, statement := range strings.Split(strings.ReplaceAll(roles, "{{database}}", "`"+database+"`"), ";\n") {
		lines := strings.Split(statement, "\n")
		for len(lines) > 0 && (strings.HasPrefix(lines[0], "--") || strings.TrimSpace(lines[0]) == "") {
			lines = lines[1:]
		}
		if text := strings.TrimSpace(strings.Join(lines, "\n")); text != "" {
			out = append(out, text)
		}
	}
	return out
}
