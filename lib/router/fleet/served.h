/*
 * Which worker serves which model. A list is what one server answered to GET /v1/models, adapters
 * included; a table says for a whole fleet and any model which workers cannot take the request.
 * Both are immutable and counted by reference; reading is thread-safe.
 *
 * Until a worker has answered with a list its label `model_id` stands for one: ids with commas
 * between them. Without that it can take anything before it has answered, as it has just come, and
 * afterwards what no other worker of its pool lists. An empty id is served by all: engines then
 * take their own.
 */
#ifndef PD_ROUTER_SERVED_H
#define PD_ROUTER_SERVED_H

#include "lib/router/fleet/fleet.h"

#define SERVED_LABEL	"model_id"
#define SERVED_LIST_MAX 512	   /* models of one server; a list with more is read as not known */
#define SERVED_IDS_MAX	4096	   /* distinct ids of a fleet; others are served by all workers */
#define SERVED_PAGE_MAX (4u << 20) /* bytes of an answer */

struct served_model {
	struct span id;	    /* JSON text inside the quotes */
	struct span object; /* its JSON, whole */
	uint64_t hash;	    /* served_hash of the id */
	bool adapter;	    /* it has a parent: LoRA */
};

struct served_list {
	_Atomic unsigned refs;
	size_t n;
	uint64_t set; /* equal for lists with the same ids, in any order */
	struct served_model *model;
	char *text; /* owned; what the spans point into */
};

/* Of a model's id as JSON text inside the quotes: escapes do not matter. 0: out of memory. */
uint64_t served_hash(struct span id);

/* Reads an answer, {"data":[{"id":...},...]}; entries without an id are left out. PD_EPROTO: it is
 * no such list, or too long. PD_ENOMEM. One reference. */
int served_list_read(struct served_list **out, const char *page, size_t n) PD_MUST;
void served_list_put(struct served_list *l); /* NULL is accepted */

/* The worker's list with a reference; NULL: not known. */
struct served_list *served_of(struct worker *w);
/* Takes the list over (NULL: not known any more). True: its ids are others than before. */
bool served_set(struct worker *w, struct served_list *l);

/* Of one model. */
struct served {
	uint64_t hash;
	bool adapter;	     /* on one worker at least */
	bool somewhere;	     /* one worker at least may serve it, or there are no workers */
	bool *barred[ROLES]; /* by place in the pool: cannot take it; NULL: all can */
};

struct served_table {
	_Atomic unsigned refs;
	uint64_t version; /* of the fleet that it is for */
	size_t n;
	struct served *entry; /* by hash */
	struct served other;  /* ids that no list has */
	bool full;	      /* more than SERVED_IDS_MAX ids: any may be on any worker */
};

/* The table of a fleet as its workers' lists are now. PD_ENOMEM. One reference. */
int served_table_new(struct served_table **out, struct fleet *f) PD_MUST;
void served_table_put(struct served_table *t); /* NULL is accepted */
/* What it says of a model. Lives as long as the table. */
const struct served *served_find(const struct served_table *t, uint64_t hash);

#endif
