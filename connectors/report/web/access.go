package web

import (
	"errors"
	"net/http"
	"strings"

	"github.com/nimriz/partners/schemas/catalog"
)

// feature is what a route shows, by the access flag that it needs beside the plan.
// Flags decide who may look, never what is stored.
type feature string

const (
	partnerReporting    feature = "partner_reporting"
	conversionReporting feature = "conversion_reporting"
	exports             feature = "exports"
)

// missingFeature is the first of the features that a workspace does not have, or
// "plan"; empty if it has all.
func missingFeature(w *catalog.Workspace, need ...feature) string {
	if w == nil || !w.Entitled() {
		return "plan"
	}
	has := map[feature]bool{
		partnerReporting:    w.Access.PartnerReporting,
		conversionReporting: w.Access.ConversionReporting,
		exports:             w.Access.Exports,
	}
	for _, f := range need {
		if !has[f] {
			return "access." + string(f)
		}
	}
	return ""
}

// admit checks a request: its token must belong to workspace (to any workspace, if that
// is ""), and the workspace must have all features in need. If it lacks one, admit
// returns the workspace's id with the error.
func (s *Server) admit(req *http.Request, workspace string, need ...feature) (*catalog.Workspace, error) {
	token, err := s.tokens.authenticate(req, s.now())
	if errors.Is(err, errUnreadable) || err != nil && s.tokens.isUnreadable(workspace) {
		return nil, unreadableTokens()
	}
	if err != nil {
		return nil, &problem{
			Status: http.StatusUnauthorized,
			Code:   "unauthorized",
			Detail: "sign in, or send Authorization: Bearer with a reader token",
		}
	}
	if workspace == "" {
		workspace = token.workspace
	}
	if token.workspace != workspace {
		return nil, &problem{
			Status: http.StatusForbidden,
			Code:   "forbidden",
			Detail: "this reader token is of another workspace",
		}
	}
	ws, err := s.reader.Workspace(req.Context(), workspace)
	if err != nil {
		return nil, err
	}
	s.watch.Clear(answering)
	if lacks := missingFeature(ws, need...); lacks != "" {
		return &catalog.Workspace{ID: workspace}, &problem{
			Status: http.StatusForbidden,
			Code:   "not_entitled",
			Field:  lacks,
			Detail: "the workspace's " + strings.TrimPrefix(lacks, "access.") +
				" does not include this; what happened is stored all the same",
		}
	}
	return ws, nil
}
