/*
 * A format of workload files: one row of the table in formats.c, one file of code or none. Adding
 * one is: write format_NAME.c (a table of members, or a function for nested records), add its row.
 * docs/workloads.md, the help texts, the tests and the fuzz target walk the table; each reads the
 * row's example.
 */
#ifndef PD_WORKLOAD_FORMAT_H
#define PD_WORKLOAD_FORMAT_H

#include "lib/json/scan.h"
#include "lib/workload/names.h"
#include "lib/workload/records.h"
#include "lib/workload/workload.h"

enum format_shape {
	FORMAT_JSON, /* JSON Lines, values one after the other, or one array */
	FORMAT_CSV,
	FORMAT_TEXT,  /* a prompt a line */
	FORMAT_OTHER, /* a file of its own kind, see `open` */
};

struct format_reader;

/* ---- members of a record ---- */

enum field_kind {
	FIELD_COUNT,  /* a whole number, 0 or more; 4.0 is 4 */
	FIELD_TIME,   /* in the rule's unit, unless --timestamp-unit or its size says otherwise */
	FIELD_PAUSE,  /* in the rule's unit */
	FIELD_NAME,   /* a text or a whole number */
	FIELD_PROMPT, /* a text, or a list of token ids */
	FIELD_TEXT,   /* a text only */
	FIELD_MESSAGES,
	FIELD_LIST, /* an array, as it is */
	FIELD_FLAG,
	FIELD_IDS,
	FIELD_BODY,  /* sent as it is, a member of the body of the same name */
	FIELD_MERGE, /* an object whose members are sent */
	FIELD_KNOWN  /* describes the record, tells nothing about its request */
};

/* Where a member goes. Several names may set the same target; the lower rank wins, and of equal
 * rank the last in the record. */
enum field_target {
	TO_INPUT,
	TO_OUTPUT,
	TO_ARRIVAL,
	TO_DELAY,
	TO_TURN,
	TO_GROUP,
	TO_BLOCK,
	TO_KEY,
	TO_SESSION,
	TO_PROMPT,
	TO_MESSAGES,
	TO_PICKED,
	TO_DRAWS,
	TO_HASHED,
	TO_IDS,
	TO_NOTHING,
	TO_COUNT
};

struct field_rule {
	const char *name;
	enum field_kind kind;
	enum field_target to;
	unsigned rank;
	enum workload_unit unit; /* of a time or pause */
};

struct workload_format {
	const char *name;
	const char *title;  /* whose, and what it holds */
	const char *marks;  /* what it is recognised by */
	const char *times;  /* unit of its times; NULL: it has none */
	const char *origin; /* where it is described */
	const char *example;
	enum format_shape shape;
	uint32_t block_tokens;		/* per hash id; 0: WORKLOAD_BLOCK_TOKENS */
	bool open_body;			/* members that no rule knows are sent as they are */
	bool own_ms;			/* time stamps are ms also when they have fractions */
	const struct field_rule *rules; /* ended by a NULL name; before the common ones */
	/* JSON: is this object a record of it? CSV: NULL, the columns tell */
	bool (*is)(const struct json_object *o);
	/* JSON: adds the requests of a record; NULL: one, by the rules */
	int (*object)(struct format_reader *rd, const struct json_object *o);
	const char *const *columns; /* CSV: names that the header must have; NULL-terminated */
	/* CSV: adds the requests of a row; cell(rd, name) gives its cells */
	int (*row)(struct format_reader *rd);
	/* OTHER: does the file begin like this, and its reader */
	bool (*starts)(struct span start);
	int (*open)(struct format_reader *rd, const char *path);
};

/* The table, ended by NULL; the more special formats stand before the more general ones. */
extern const struct workload_format *const workload_formats[];
const struct workload_format *workload_format_find(const char *name);
/* The names, separated by ", ". */
int workload_format_names(struct buf *out) PD_MUST;
/* The table as Markdown, for docs. */
int workload_format_markdown(struct buf *out) PD_MUST;

/* ---- what a format's code may use ---- */

struct format_unused {
	char *name;
	size_t records;
};

/* Texts that come again and again, once each. */
struct format_texts {
	struct names numbers;
	struct span *text; /* owned array; the texts lie in the arena */
	size_t cap;
};

struct format_reader {
	struct workload *w;
	const char *name; /* of the file */
	struct workload_options opt;
	const struct workload_format *format;
	struct record_text record; /* at hand */
	struct pd_msg *msg;
	/* CSV */
	struct span column[RECORDS_CELLS_MAX], cell[RECORDS_CELLS_MAX];
	bool column_used[RECORDS_CELLS_MAX],
		column_filled[RECORDS_CELLS_MAX]; /* filled: in some row */
	size_t ncolumns, ncells;
	/* numbering */
	struct format_texts sessions, keys;
	struct names chats; /* ids of records that others name as parent */
	uint32_t *chat_at;  /* owned: the request of each chat */
	struct session_state {
		uint32_t last; /* request */
		int64_t turns, last_turn;
	} * session; /* owned, one per session */
	size_t session_cap, chat_cap, cap, ids_cap;
	/* what is told at the end */
	struct format_unused unused[32];
	size_t nunused, unused_more;
	enum workload_unit unit_taken[WORKLOAD_UNIT_NS + 1]; /* of time stamps, by the unit of their
							     rule; AUTO: none seen yet */
	bool since_1970, fractions;
	bool turns_back; /* a stated turn lies before the turn before it */
	bool taken;	 /* the workload is finished: a row's `open` has filled it */
	bool tree;	 /* `before` of requests is the format's, not the order in the session */
	struct buf scratch, text; /* text: for the code of a format */
};

/* Everything "not stated". */
void format_request(const struct format_reader *rd, struct workload_request *r);
/* The rules of the format, then the common ones; members that neither knows are noted, or sent. */
int format_fields(struct format_reader *rd, const struct json_object *o,
		  struct workload_request *r) PD_MUST;
/* Reads a nested object by the same rules, or by others. The object is released. */
int format_fields_of(struct format_reader *rd, const struct field_rule *rules, bool open_body,
		     struct span object, struct workload_request *r) PD_MUST;
/* Appends the request: copies its texts, numbers its session. A session that the format states is
 * `ordered`. */
int format_add(struct format_reader *rd, struct workload_request *r) PD_MUST;
int format_check(struct format_reader *rd, const struct workload_request *r) PD_MUST;
int format_add_id(struct format_reader *rd, struct workload_request *r, uint64_t id) PD_MUST;

/* PD_EINVAL with "FILE:LINE:COLUMN: "; `at` points into the record. */
int format_wrong(struct format_reader *rd, const char *at, const char *fmt, ...) PD_PRINTF(3, 4);
/* A sentence for the user, once. PD_ENOMEM. */
int format_note(struct format_reader *rd, const char *fmt, ...) PD_PRINTF(2, 3) PD_MUST;
void format_unused_member(struct format_reader *rd, struct span name);
/* A copy that stays. */
int format_keep(struct format_reader *rd, struct span text, struct span *out) PD_MUST;

/* A count, a time or a pause out of a number's text; PD_EINVAL when it is none. */
int format_count(struct span text, int64_t *out) PD_MUST;
int format_time(struct format_reader *rd, struct span text, enum workload_unit unit,
		int64_t *out) PD_MUST;
int format_pause(struct span text, enum workload_unit unit, int64_t *out) PD_MUST;
/* ns since 1970 of "2023-11-16 18:15:46.6805900", with T or a zone or without. */
int format_date(struct span text, int64_t *out) PD_MUST;

/* The cell of a column; n == 0 when the file has no such column. */
struct span format_cell(struct format_reader *rd, const char *column);
/* A cell as a count or a time; an error names the column. -1 for an empty cell. */
int format_cell_count(struct format_reader *rd, const char *column, int64_t *out) PD_MUST;
int format_cell_time(struct format_reader *rd, const char *column, enum workload_unit unit,
		     int64_t *out) PD_MUST;

/* Tokens of a text whose length nobody states: four bytes each. */
#define FORMAT_ESTIMATED_OUTPUT                                                                    \
	"output lengths are estimated from the answers of the file: 4 bytes a token"
int64_t format_estimate(struct span text);
/* A name for the session of a record that has none: "line-N". Lives in rd->scratch. */
int format_line_session(struct format_reader *rd, struct span *out) PD_MUST;
/* Conversations. Appends {"role":ROLE,"content":CONTENT}; content is a JSON value. */
int format_message(struct buf *out, const char *role, struct span content) PD_MUST;

#endif
