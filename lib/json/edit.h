/*
 * Splice editing: a short list of edits on a JSON text, gathered without copying what stays. All
 * bytes outside the edits are the same bytes. Used for request bodies, which may be 512 MiB, so the
 * result is a list of spans for writev and not a copy. Not thread-safe: one owner.
 *
 * The edited text is the whole document that was scanned, with the white space around the object.
 * Too many edits: PD_ETOOBIG. Edits that overlap (a value replaced inside a member that is removed
 * or set) are found by json_edit_finish: PD_EINVAL.
 */
#ifndef PD_JSON_EDIT_H
#define PD_JSON_EDIT_H

#include "lib/json/scan.h"

#define JSON_EDITS_MAX	  32   /* splices; an appended member takes two */
#define JSON_EDIT_SCRATCH 4096 /* bytes for the names of appended members */

struct json_splice {
	size_t off; /* where, in the original text */
	size_t del; /* bytes removed there */
	struct span
		ins; /* bytes put there instead; points into `scratch` of the editor or borrowed */
};

struct json_edit {
	struct span text;
	const struct json_object *object;	   /* the scan of text; must outlive the edit */
	struct json_splice splice[JSON_EDITS_MAX]; /* sorted by off by json_edit_finish */
	size_t n;
	size_t removed[JSON_EDITS_MAX]; /* indices of members to remove; become splices in
					   json_edit_finish */
	size_t nremoved;
	struct buf
		scratch; /* names of appended members; reserved at the first use and never moved */
	bool appended;	 /* something was inserted before the closing brace */
};

/* `object` must outlive the edit. Never fails at present. */
int json_edit_init(struct json_edit *e, const struct json_object *object) PD_MUST;
void json_edit_release(struct json_edit *e);

/*
 * Sets a top-level member to the JSON text `value` (borrowed until the edit is released): replaces
 * the value of every occurrence or appends the member at the end. A second set of the same name
 * replaces the first.
 */
int json_edit_set(struct json_edit *e, const char *name, struct span value) PD_MUST;
/* Removes every occurrence of a top-level member with one of its commas; nothing when absent. */
int json_edit_remove(struct json_edit *e, const char *name) PD_MUST;
/* Replaces a value span inside the text (for example a nested one) by other JSON text. PD_EINVAL
 * when it lies outside. */
int json_edit_replace(struct json_edit *e, struct span value, struct span with) PD_MUST;

/* Sorts the edits and computes the total length. Afterwards only the two functions below may be
 * used. */
int json_edit_finish(struct json_edit *e, size_t *total) PD_MUST;
/* Fills at most cap spans (2 * JSON_EDITS_MAX + 1 always suffices) that together are the edited
 * text; returns how many. */
size_t json_edit_spans(const struct json_edit *e, struct span *out, size_t cap);
/* The edited text as one copy. */
int json_edit_copy(const struct json_edit *e, struct buf *out) PD_MUST;

#endif
