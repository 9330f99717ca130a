package event

import (
	"fmt"
	"time"

	"github.com/linkedin/goavro/v2"
)

// Progress and Rejection are rare, so they go through goavro's maps. A field of today's
// schema that an older writer did not know is left zero.

func (k cold) append(dst []byte, native map[string]any) ([]byte, error) {
	b, err := k.codec.BinaryFromNative(appendHead(dst, k.id), native)
	if err != nil {
		return dst, fmt.Errorf("encoding: %w", err)
	}
	return b, nil
}

func (c *Codec) decodeCold(b []byte, record string) (fields, error) {
	r, body, err := c.frame(b, record)
	if err != nil {
		return nil, err
	}
	native, err := r.native(body)
	if err != nil {
		return nil, err
	}
	m, ok := native.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not a record", ErrMalformed, record)
	}
	return m, nil
}

// fields is a record in goavro's native form.
type fields map[string]any

func (f fields) text(name string) string { s, _ := f[name].(string); return s }
func (f fields) long(name string) int64  { v, _ := f[name].(int64); return v }
func (f fields) int(name string) int32   { v, _ := f[name].(int32); return v }
func (f fields) flag(name string) bool   { v, _ := f[name].(bool); return v }
func (f fields) at(name string) Millis {
	t, ok := f[name].(time.Time)
	if !ok {
		return 0
	}
	return MillisOf(t)
}

// AppendProgress appends p in wire form.
func (c *Codec) AppendProgress(dst []byte, p *Progress) ([]byte, error) {
	var oldest any
	if p.OldestWaitingReceivedAt != nil {
		oldest = goavro.Union("long.timestamp-millis", p.OldestWaitingReceivedAt.Time())
	}
	return c.progress.append(dst, map[string]any{
		"partition": p.Partition, "at": p.At.Time(), "clicks_position": p.ClicksPosition, "conversions_position": p.ConversionsPosition,
		"clicks_max_at": p.ClicksMaxAt.Time(), "conversions_max_at": p.ConversionsMaxAt.Time(), "outcomes_end": p.OutcomesEnd,
		"read": p.Read, "attributed": p.Attributed, "reversed": p.Reversed, "duplicate": p.Duplicate, "conflict": p.Conflict,
		"unattributed": p.Unattributed, "unreadable": p.Unreadable, "waiting": p.Waiting, "oldest_waiting_received_at": oldest,
		"caught_up": p.CaughtUp, "grace_ms": p.GraceMs,
	})
}

// DecodeProgress reads a progress record from wire form.
func (c *Codec) DecodeProgress(b []byte, p *Progress) error {
	f, err := c.decodeCold(b, "Progress")
	if err != nil {
		return err
	}
	*p = Progress{
		Partition: f.int("partition"), At: f.at("at"), ClicksPosition: f.long(
			"clicks_position"), ConversionsPosition: f.long("conversions_position"),
		ClicksMaxAt: f.at("clicks_max_at"), ConversionsMaxAt: f.at("conversions_max_at"), OutcomesEnd: f.long(
			"outcomes_end"),
		Read: f.long("read"), Attributed: f.long("attributed"), Reversed: f.long("reversed"), Duplicate: f.long(
			"duplicate"), Conflict: f.long("conflict"),
		Unattributed: f.long("unattributed"), Unreadable: f.long("unreadable"), Waiting: f.long("waiting"),
		CaughtUp: f.flag("caught_up"), GraceMs: f.long("grace_ms"),
	}
	if u, ok := f["oldest_waiting_received_at"].(map[string]any); ok {
		at := fields(u).at("long.timestamp-millis")
		p.OldestWaitingReceivedAt = &at
	}
	return nil
}

// AppendRejection appends r in wire form.
func (c *Codec) AppendRejection(dst []byte, r *Rejection) ([]byte, error) {
	return c.rejection.append(dst, map[string]any{
		"workspace_id": r.WorkspaceID, "webhook_id": r.WebhookID, "event_id": r.EventID, "click_token": r.ClickToken, "received_at": r.ReceivedAt.Time(),
		"status": r.Status, "code": r.Code, "field": r.Field, "detail": r.Detail, "body_sha256": r.BodySHA256[:], "key_id": r.KeyID,
	})
}

// DecodeRejection reads a rejection from wire form.
func (c *Codec) DecodeRejection(b []byte, r *Rejection) error {
	f, err := c.decodeCold(b, "Rejection")
	if err != nil {
		return err
	}
	*r = Rejection{
		WorkspaceID: f.text("workspace_id"), WebhookID: f.text("webhook_id"), EventID: f.text(
			"event_id"), ClickToken: f.text("click_token"),
		ReceivedAt: f.at("received_at"), Status: f.int("status"), Code: f.text("code"), Field: f.text(
			"field"), Detail: f.text("detail"), KeyID: f.text("key_id"),
	}
	sum, _ := f["body_sha256"].([]byte)
	copy(r.BodySHA256[:], sum)
	return nil
}
