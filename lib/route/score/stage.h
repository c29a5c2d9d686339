/*
 * A plugin of the endpoint picker: a filter, a scorer, a picker, or what belongs to a configuration
 * beside them. One file each (a few small ones share a file where they share a formula) and one
 * line in stages.c. The formulas are those of llm-d's endpoint picker; recorded results of its own
 * code are the judge (`pdctl explain --cases`).
 *
 * A stage only reads: load comes from the workers' slots, labels were read when the pool was made
 * (facts), and what it remembers is its memory. Everything here is called by many threads at once.
 */
#ifndef PD_ROUTE_STAGE_H
#define PD_ROUTE_STAGE_H

#include "lib/base/yamlnode.h"
#include "lib/route/policy.h"

enum {
	SCORE_FILTER = 1,
	SCORE_SCORER = 2,
	SCORE_PICKER = 4,
	SCORE_HANDLER = 8,    /* of profiles */
	SCORE_DECIDER = 16,   /* whether to disaggregate */
	SCORE_PRODUCER = 32,  /* of what scorers read */
	SCORE_DETECTOR = 64,  /* of saturation */
	SCORE_FAIRNESS = 128, /* between flows of a band */
	SCORE_ORDERING = 256, /* within a flow */
	SCORE_CEILING = 512,  /* of a band's use */
	SCORE_OTHER = 1024,   /* known, and the router does it without being told */
};

/* What a stage wants a decision to know. */
enum {
	SCORE_WANTS_PREFIX = 1,
	SCORE_WANTS_LOAD = 2,
	SCORE_WANTS_TOKENS = 4,
	SCORE_DRAWS = 8,
	SCORE_WANTS_SIGNALS = 16
};

/* What a worker holds of this prompt. */
struct score_match {
	int64_t match, total; /* blocks */
	int64_t block;	      /* tokens of one */
	int64_t cached;	      /* blocks, as the decider counts them */
	bool known;
};

/* Whether tokens of answers count as load, and how they are estimated. */
struct score_flight {
	bool output;
	double ratio;
	int64_t max; /* 0: no limit */
};

/* What is given instead of looked up, per worker: recorded cases. */
struct score_given {
	struct score_match match;
	int64_t uncached; /* tokens of this request there; negative: look at the match */
	double ttft_ms;	  /* predicted; negative: not */
};

/* What a stage makes of a worker's labels, once per set of workers. */
struct score_fact {
	struct span text;
	int64_t low, high;
	uint32_t kind;
};

/* One decision under way. */
struct score_run {
	const struct route_pool *pool;
	const struct route_request *rq;
	const uint32_t *load;		 /* in flight, per worker */
	const struct score_given *given; /* per worker; NULL: look it up */
	const uint16_t *match;		 /* per worker: leading blocks it holds; NULL: not known */
	uint32_t blocks, block_tokens;	 /* of the prompt; of one block */
	const struct score_flight *flight; /* NULL: output is not counted */
};

struct score_call {
	const struct score_run *run;
	const void *params;
	const struct score_fact *fact; /* per worker; NULL: the stage has none */
	void *memory;
	unsigned nth; /* the stage's place, for its draws */
};

/* A stage's parameter, read from YAML. */
enum score_param_type {
	SCORE_PARAM_END,
	SCORE_PARAM_INT,      /* int64_t */
	SCORE_PARAM_REAL,     /* double */
	SCORE_PARAM_BOOL,     /* bool */
	SCORE_PARAM_TEXT,     /* const char * */
	SCORE_PARAM_DURATION, /* int64_t, ns */
	SCORE_PARAM_NODE,     /* struct yamlnode: the stage reads it itself */
};

struct score_param {
	enum score_param_type type;
	const char *name;
	size_t offset;
	double fallback;  /* INT, REAL, BOOL, DURATION (ns) */
	const char *text; /* TEXT: the default, or NULL */
	bool old;	  /* of inference.networking.x-k8s.io/v1alpha1 only */
	bool without;	  /* accepted, and has no effect: said when the file is read */
};

/* Reading a file: where messages are about, and memory that lives as long as the configuration. */
struct score_reader {
	const char *file;
	struct pd_msg *msg;
	struct score_arena *arena;
	bool old;	      /* the file is of the older apiVersion */
	struct yamlnode node; /* the parameters, for messages */
};

struct score_type {
	const char *name;
	unsigned kinds, wants;
	const char *help;		  /* half a line, for the table in docs/ */
	const struct score_param *params; /* ends with SCORE_PARAM_END; NULL: none */
	size_t params_size;
	bool unread; /* takes any parameters and reads none */
	/* Checks and completes what was read; NULL: nothing to do. PD_EINVAL by score_wrong(). */
	int (*check)(struct score_reader *r, void *params);
	void (*fact)(const void *params, const struct route_worker *w, struct score_fact *out);
	/* Keeps some of the n workers of the list, in order, and returns how many. */
	size_t (*filter)(const struct score_call *c, uint16_t *list, size_t n);
	/* A score for each of the n workers of the list. */
	void (*score)(const struct score_call *c, const uint16_t *list, size_t n, double *out);
	/* Pickers: what the workers are ordered by, of the weighted score; NULL: by that. */
	double (*rank)(const struct score_call *c, uint32_t worker, double score);
	size_t (*count)(const void *params); /* pickers: how many workers are picked */
	/* Deciders: is prefill done elsewhere? `m` is of the decode worker. */
	bool (*split)(const void *params, int64_t prompt_tokens, const struct score_match *m);
	/* Detectors: the saturation of a pool; 1 and above is saturated. */
	double (*saturation)(const struct score_call *c, const uint16_t *list, size_t n);
	int (*memory_new)(const void *params, void **memory);
	void (*memory_free)(void *memory);
	/* A request goes to this worker; `cold`: no candidate held a block of its prompt. */
	void (*picked)(const struct score_call *c, uint64_t worker, bool cold);
	void (*left)(void *memory, uint64_t worker); /* the worker is gone */
};

/* An instance: a plugin with its parameters. */
struct score_stage {
	const struct score_type *type;
	const char *name;
	const void *params;
	double weight;
};

/* Those that code refers to by themselves. */
extern const struct score_type score_queue, score_kv, score_prefix, score_max_picker;

extern const struct score_type *const score_types[]; /* ends with NULL */
/* NULL: there is none of this name. */
const struct score_type *score_type_find(const char *name);
/* A Markdown table of the plugins, for docs/. */
int score_types_markdown(struct buf *out) PD_MUST;

/* -- for stages -- */

static inline struct score_match score_match_of(const struct score_run *r, uint32_t w)
{
	if (r->given)
		return r->given[w].match;
	if (!r->match)
		return (struct score_match){0};
	return (struct score_match){.match = r->match[w],
				    .total = r->blocks,
				    .block = r->block_tokens,
				    .cached = r->match[w],
				    .known = true};
}

/* Tokens of the answer, estimated by the prompt's length. */
int64_t score_output(const struct score_flight *f, const struct route_request *rq);

/* Tokens of this request that the worker has to compute: what lies behind the last whole block,
 * and the blocks that it does not hold. */
static inline int64_t score_uncached(const struct score_run *r, uint32_t w)
{
	struct score_match m = score_match_of(r, w);
	int64_t rest = (int64_t)r->rq->tokens - m.total * m.block;

	if (r->given && r->given[w].uncached >= 0)
		return r->given[w].uncached;
	return (rest > 0 ? rest : 0) + (m.total - m.match) * m.block +
	       (r->flight ? score_output(r->flight, r->rq) : 0);
}

/* The value of a header of the request by its lower-case name; p NULL: it has none. */
struct span score_header(const struct route_request *rq, const char *name);
/* A draw of this stage, in [0, 1). */
static inline double score_unit(const struct score_call *c, uint64_t nth)
{
	/* The finaliser of SplitMix64. */
	uint64_t z = c->run->rq->draw + (c->nth + 1) * 0x9e3779b97f4a7c15u + (nth ^ nth << 29);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* "FILE:LINE:COLUMN: ..." about a parameter (NULL: about all of them). Returns PD_EINVAL. */
int score_wrong(const struct score_reader *r, const char *param, const char *fmt, ...)
	PD_PRINTF(3, 4);
/* Zeroed memory that lives as long as the configuration. NULL: none left. */
void *score_arena_get(struct score_arena *a, size_t size);
/* The same for texts: a copy in lower case. */
const char *score_lower(struct score_arena *a, const char *text);

#define SCORE_STAGE_NAME(s) ((s)->name ? (s)->name : (s)->type->name)

#endif
