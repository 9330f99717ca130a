package event

import (
	"encoding/binary"
	"fmt"
)

// The redirector writes a click in each visit, so AppendClick does it by hand: a
// reflecting encoder takes several times as long. A test compares the bytes with
// twmb/avro's over all fields.

// AppendClick appends k in wire form. The caller has called k.Fit.
func (c *Codec) AppendClick(dst []byte, k *Click) ([]byte, error) {
	b, err := appendClick(appendFraming(dst, c.click.id), k)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// appendClick appends k without framing.
func appendClick(b []byte, k *Click) ([]byte, error) {
	status, trigger := -1, -1
	switch k.TokenStatus {
	case TokenAppended:
		status = 0
	case TokenWithheld:
		status = 1
	case TokenOff:
		status = 2
	}
	switch k.Trigger {
	case TriggerLink:
		trigger = 0
	case TriggerQR:
		trigger = 1
	}
	if status < 0 || trigger < 0 {
		return nil, fmt.Errorf("encoding: token_status %q, trigger %q: unknown symbol", k.TokenStatus, k.Trigger)
	}
	b = appendString(b, k.ClickToken)
	b = binary.AppendVarint(b, int64(k.ClickedAt))
	b = append(b, byte(status<<1))
	b = appendString(b, k.TokenReason)
	b = append(b, byte(trigger<<1))
	b = appendStrings(b, k.Sub1, k.Sub2, k.Sub3, k.Sub4, k.Sub5, k.ReferrerHost, k.Country, k.Device, k.OS, k.Browser)
	b = appendFlag(b, k.IsBot)
	b = appendString(b, k.BotReason)
	return appendLinkPart(b, k), nil
}

// appendLinkPart appends what is the same for all visits of a link.
func appendLinkPart(b []byte, k *Click) []byte {
	b = appendString(b, k.WorkspaceID)
	b = binary.AppendVarint(b, k.WindowMs)
	b = binary.AppendVarint(b, k.FollowMs)
	b = appendFlag(b, k.OneSalePerOrder)
	b = appendStrings(b, k.LinkID, k.Domain, k.Slug, k.Destination)
	b = appendStrings(b, k.PartnerID, k.PartnerKey, k.PartnerName, k.PartnerRelationship, k.PartnerLifecycle)
	b = appendStrings(b, k.ProgramID, k.ProgramKey, k.ProgramName, k.ProgramStatus, k.AssignmentID)
	b = binary.AppendVarint(b, int64(k.AssignedAt))
	b = appendStrings(b, k.RewardTerms, k.UTMSource, k.UTMMedium, k.UTMCampaign, k.UTMTerm, k.UTMContent,
		k.Experiment, k.Variant)
	return binary.AppendVarint(b, k.CatalogOffset)
}

// AppendFitted appends k in wire form after k.Fit, and returns how many texts that
// truncated. Nearly every click fits as it is, so its size is measured by writing it.
func (c *Codec) AppendFitted(dst []byte, k *Click) (b []byte, truncated int, err error) {
	b, err = c.AppendClick(dst, k)
	if err != nil || len(b)-len(dst) <= FramingLen+MaxClickBytes {
		return b, 0, err
	}
	truncated = k.Fit()
	b, err = c.AppendClick(b[:len(dst)], k)
	return b, truncated, err
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendStrings(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = appendString(b, s)
	}
	return b
}

func appendFlag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
