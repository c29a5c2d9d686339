/*
 * A connector: how the KV blocks of a request get from its prefill to its decode worker, as far as
 * a router has to know. It writes and reads text only; its user does the I/O. One file per
 * connector and one line in connectors.c; nothing else names one. Pure, thread-safe.
 *
 *	struct pd_pair p = {.path = pd_path_of(path), ...};
 *
 *	c->check(&body, &msg)           before the first attempt
 *	c->prefill(&p, &copy, &msg)     each attempt: send the copy to the prefill worker
 *	c->answered(&p, answer, &msg)   with its whole answer, while that stays in memory:
 *	c->decode(&p, &copy, &msg)      send the copy to the decode worker, pass its answer on
 *	c->release(&p, &copy, &msg)     instead, when the client has left in between
 *	pd_pair_release(&p)
 */
#ifndef PD_PD_CONNECTOR_H
#define PD_PD_CONNECTOR_H

#include "lib/pd/path.h"
#include "lib/pd/usage.h"

#define PD_COPY_FIELDS 4

enum pd_connector_flags {
	PD_READ_ONCE = 1, /* the blocks can be read once: a decode that may have read them is not
			     sent again without a new prefill */
	PD_WHOLE = 2,	  /* both workers get the whole request, so none goes to decode alone */
	PD_KNOWS = 4,	  /* reads or writes what is known of a prefill worker (`known`) */
	PD_ENDS = 8,	  /* reads what workers tell of themselves by labels: kv, tp_size, dp_size,
			     writes */
};

/* Where a worker is. */
struct pd_end {
	struct span host;
	uint16_t port;
	int bootstrap;		   /* port; 0: none */
	int rank;		   /* of a data-parallel server; -1: none */
	struct span kv;		   /* "host:port" of its KV transfer; n == 0: as its HTTP address */
	unsigned tp_size, dp_size; /* tensor and data parallel; 0: not known */
	bool writes; /* MoRI-IO: its blocks are written to the decode worker, not read by it */
};

/* One attempt by two workers. */
struct pd_pair {
	/* the caller's, before the first call */
	enum pd_path path;
	struct span id; /* of the request, for both workers */
	struct pd_end prefill, decode;
	uint64_t draw;	   /* random, new for each attempt */
	struct span known; /* what was learnt of the prefill worker; n == 0: nothing */
	/* what `prefill` decided: the decode worker is called while prefill runs */
	bool at_once;
	/* what `answered` found, with at_once already `prefill` */
	bool blocks;	    /* the prefill worker holds blocks for the decode worker */
	struct span params; /* their coordinates in the answer; n == 0: none */
	struct span learnt; /* to be `known` of this prefill worker from now on; n == 0: no news */
	struct pd_prefill_usage usage;
	/* memory of the connector's texts until pd_pair_release; the second is one id */
	struct buf text, made_id;
};

/* Room for both; they are empty until a connector writes. */
#define PD_TEXT_MAX (2u << 20)
void pd_pair_init(struct pd_pair *p, enum pd_path path, struct span id, uint64_t draw);

/* What a worker gets: the body with edits, and the head's fields that differ from the client's. */
struct pd_copy {
	struct json_edit body;
	struct span id; /* X-Request-Id; set to the pair's before the call */
	struct field add[PD_COPY_FIELDS];
	size_t nadd;
};

struct pd_connector {
	const char *name, *help;
	const char *also; /* other names that users know, "a|b"; NULL: none */
	unsigned flags;
	/* GET this at a prefill worker's bootstrap port (0: at bootstrap_port) once it is healthy;
	 * the answer becomes `known`. NULL: nothing is asked. */
	const char *inquiry;
	uint16_t bootstrap_port;
	const char *returns; /* what the prefill answer must hold, for messages; NULL: nothing */
	/* What a client must not send: PD_EINVAL with a sentence. NULL: it may send anything. */
	int (*check)(const struct json_object *body, struct pd_msg *msg);
	/* The prefill worker's copy. PD_EINVAL with a sentence for the client; PD_ETOOBIG;
	 * PD_ENOENT with a sentence: the workers cannot be paired (something about one of them is
	 * not known), and --pd-fallback says what follows. */
	int (*prefill)(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg);
	/* Reads the prefill answer. PD_EINVAL: it is no answer, and the worker has failed. */
	int (*answered)(struct pd_pair *p, struct span answer, struct pd_msg *msg);
	/* The decode worker's copy, with p->blocks or (decode alone) without. */
	int (*decode)(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg);
	/* A copy that makes the decode worker fetch and so free p->blocks, as cheap as possible.
	 * NULL: they need no freeing. */
	int (*release)(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg);
};

/* The table, and its names for look-ups and help; both end with NULL. The first is the default. */
extern const struct pd_connector *const pd_connectors[];
extern const char *const pd_connector_names[];

/* Also by one of its other names, and with '-' for '_'. PD_EINVAL with the known names, and the
 * nearest one when it is close; a protocol that is not spoken on purpose says why. */
int pd_connector_find(const struct pd_connector **out, const char *name,
		      struct pd_msg *msg) PD_MUST;
/* One name a line. */
int pd_connectors_print(struct buf *out) PD_MUST;
/* A Markdown table for docs/. */
int pd_connectors_markdown(struct buf *out) PD_MUST;

/* A copy of the body without edits. */
int pd_copy_init(struct pd_copy *c, const struct json_object *body,
		 const struct pd_pair *p) PD_MUST;
void pd_copy_release(struct pd_copy *c);
void pd_pair_release(struct pd_pair *p);

#endif
