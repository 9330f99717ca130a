package event

import (
	"fmt"

	"github.com/twmb/avro"
)

// A record as Avro JSON, in today's schema: one line, for files that people read, too.
// Members that are null or of a union are written bare.

// schemaOf is the newest schema of a *Click, *Conversion or *Outcome.
func (c *Codec) schemaOf(v any) (*avro.Schema, error) {
	switch v.(type) {
	case *Click:
		return c.click.schema, nil
	case *Conversion:
		return c.conversion.schema, nil
	case *Outcome:
		return c.outcome.schema, nil
	}
	return nil, fmt.Errorf("a %T has no form in JSON", v)
}

// AppendJSON appends the Avro JSON of v, which is a *Click, *Conversion or *Outcome.
// Bytes of a text that are no UTF-8 become U+FFFD.
func (c *Codec) AppendJSON(dst []byte, v any) ([]byte, error) {
	schema, err := c.schemaOf(v)
	if err != nil {
		return dst, err
	}
	b, err := schema.AppendEncodeJSON(dst, v)
	if err != nil {
		return dst, fmt.Errorf("encoding as JSON: %w", err)
	}
	return b, nil
}

// DecodeJSON reads what AppendJSON wrote into v, which is a *Click, *Conversion or
// *Outcome, and empty. The error wraps ErrMalformed.
func (c *Codec) DecodeJSON(b []byte, v any) error {
	schema, err := c.schemaOf(v)
	if err != nil {
		return err
	}
	if err := schema.DecodeJSON(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
