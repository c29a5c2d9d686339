/*
 * One answer of a server, read as it arrives: what came when, how many tokens, and how it ended. No
 * I/O and no clock: bytes and times come in as arguments, so all the rules of measurement can be
 * tested byte by byte.
 *
 * The first token is the first event that carries text (content, reasoning, refusal, tool calls, or
 * text of a completion); an event with only a role, an empty delta or only usage is none. A stream
 * is a success when it brought a token and said how it finished: a finish_reason for each choice,
 * or what the API has instead (response.completed, message_stop). [DONE] alone says nothing.
 *
 * Failures, by label: "http" (the status), "truncated" (no finish and no [DONE]), "no_finish"
 * ([DONE], but a choice without finish_reason), "no_token" (finished without text), "stream_error"
 * and "error_answer" (an error object, wrapped in "error" or not), "bad_event", "bad_answer",
 * "too_big". Owner thread only.
 */
#ifndef PD_LOAD_ANSWER_H
#define PD_LOAD_ANSWER_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/http/sse.h"
#include "lib/results/result.h"

#define ANSWER_EVENT_MAX   ((size_t)16 << 20)  /* one event of a stream */
#define ANSWER_BODY_MAX	   ((size_t)256 << 20) /* an answer that is not streamed; a text */
#define ANSWER_GAPS_MAX	   ((size_t)16 << 20)  /* pieces of one stream */
#define ANSWER_ERROR_MAX   300
#define ANSWER_CHOICES_MAX 64 /* of one answer that are told apart */

enum answer_api {
	ANSWER_CHOICES,	   /* chat and completions */
	ANSWER_EMBEDDINGS, /* "data" */
	ANSWER_RESPONSES,  /* events "response.…", "output" */
	ANSWER_MESSAGES	   /* events "message_…", "content" */
};

struct answer {
	enum answer_api api;
	bool streamed; /* the head said text/event-stream */
	bool keep_text;
	int status; /* set by the owner before the first byte of the body */
	struct sse_reader sse;
	struct buf body;
	struct buf text;     /* generated text as the inside of a JSON string, when keep_text */
	struct span brought; /* the text of the event being read, within it, quotes included */
	unsigned texts;	     /* how many it has; `brought` is the last */
	struct buf mould;    /* an event whose text alone makes the next one differ; empty: none */
	size_t mould_at, mould_n; /* where its text stands, quotes included */
	struct result_gap *gap;	  /* owned until answer_take_gaps */
	size_t ngaps, gaps_cap;
	int64_t first_token_ns; /* -1: none yet */
	int64_t last_token_ns;	/* -1: none yet */
	int64_t first_tokens;	/* tokens of the first piece; -1: the server did not say */
	int64_t said;		/* completion tokens stated up to the last piece; -1: never */
	int64_t pieces;
	int64_t prompt_tokens; /* -1: not stated, like the next two */
	int64_t completion_tokens;
	int64_t cached_tokens;
	uint64_t begun, finished; /* choices that were there, and those with a finish_reason */
	bool done;		  /* [DONE] */
	const char *failure;	  /* NULL while all is well; a constant label */
	char error[ANSWER_ERROR_MAX];
};

void answer_init(struct answer *a, enum answer_api api, bool keep_text);
void answer_release(struct answer *a);
/* Ready for the next answer; keeps the memory. */
void answer_clear(struct answer *a);

/* Body bytes that arrived at now_ns. Problems are noted in failure and error, the first one counts;
 * never fails otherwise. */
void answer_feed(struct answer *a, const char *p, size_t n, int64_t now_ns);

/* The body is over; its last byte came at now_ns. whole: as far as the transport knows nothing is
 * missing. Decides how it ended and reads an answer that was not streamed. */
void answer_end(struct answer *a, int64_t now_ns, bool whole);

/* How the tokens were counted; after answer_end. */
enum result_basis answer_basis(const struct answer *a);
/* Hands the gaps to the caller, who frees them; NULL when there is none or no memory. */
struct result_gap *answer_take_gaps(struct answer *a, size_t *n);
/* Notes the first failure. */
void answer_fail(struct answer *a, const char *label, const char *fmt, ...) PD_PRINTF(3, 4);

#endif
