package main

import (
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
)

//go:embed catalog.yaml
var demoCatalog []byte

// prepareData writes the data directory: the catalog, and secrets for workspaces
// without.
func (d *demo) prepareData() error {
	for _, dir := range []string{"", "signing-secrets", "token-keys", "reader-tokens"} {
		if err := os.MkdirAll(d.dataPath(dir), 0o700); err != nil {
			return fmt.Errorf("-data: %w", err)
		}
	}
	text := demoCatalog
	if d.catalog != "" {
		b, err := os.ReadFile(d.catalog)
		if err != nil {
			return fmt.Errorf("-catalog: %w", err)
		}
		text = b
	}
	if _, err := os.Stat(d.dataPath("catalog.yaml")); errors.Is(err, fs.ErrNotExist) || d.catalog != "" {
		if err := os.WriteFile(d.dataPath("catalog.yaml"), text, 0o644); err != nil {
			return fmt.Errorf("-data: %w", err)
		}
	}
	c, err := catalog.Load(d.dataPath("catalog.yaml"))
	if err != nil {
		return err
	}
	d.clickLife = setup.ClickLife(c.Workspaces())
	for _, w := range c.Workspaces() {
		if err := d.makeSecrets(w.ID); err != nil {
			return fmt.Errorf("making secrets of workspace %s: %w", w.ID, err)
		}
	}
	return nil
}

// makeSecrets writes those that a workspace lacks: a signing secret, a token key and a
// reader token.
func (d *demo) makeSecrets(workspace string) error {
	if err := d.writeIfMissing("signing-secrets/"+workspace, func() (string, error) {
		s, err := signature.NewSecret(rand.Reader)
		return s.Reveal(), err
	}); err != nil {
		return err
	}
	if err := d.writeIfMissing("token-keys/"+workspace, func() (string, error) {
		return token.NewKey(rand.Reader)
	}); err != nil {
		return err
	}
	clear := "reader-token-" + workspace + ".txt"
	if err := d.writeIfMissing(clear, func() (string, error) {
		var b [24]byte
		_, err := rand.Read(b[:])
		return base64.RawURLEncoding.EncodeToString(b[:]), err
	}); err != nil {
		return err
	}
	return d.writeIfMissing("reader-tokens/"+workspace, func() (string, error) {
		b, err := os.ReadFile(d.dataPath(clear))
		sum := sha256.Sum256([]byte(strings.TrimSpace(string(b))))
		return "demo:" + hex.EncodeToString(sum[:]), err
	})
}

// writeIfMissing writes a file of one line unless the file exists.
func (d *demo) writeIfMissing(name string, line func() (string, error)) error {
	if _, err := os.Stat(d.dataPath(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := line()
	if err != nil {
		return err
	}
	return os.WriteFile(d.dataPath(name), []byte(text+"\n"), 0o600)
}
