/*
 * `sweep:` of a scenario file: points at which fields of the file have other values.
 *
 *   sweep:
 *     grid: {PATH: [VALUE, ...], ...}      every combination, the last path varies fastest
 *     list: [{PATH: VALUE, ...}, ...]      instead: these points
 *     front: [METRIC, ...]                 of the Pareto front
 *
 * PATH names any field of the file ("workers.count", "parameters.virtual_nodes",
 * "events[0].at_request"), stated there or not. A point is a scenario file of its own, made by
 * setting the fields in the tree of the text, so every field can be swept and every point is
 * checked as a file is.
 */
#ifndef PD_SIM_SCENARIO_SWEEP_H
#define PD_SIM_SCENARIO_SWEEP_H

#include "lib/base/buf.h"
#include "lib/base/yamlpos.h"

#define SWEEP_POINTS_MAX 1024

struct sweep {
	size_t points; /* 0: the file has no sweep */
	char **front;  /* owned; metrics, nfront of them */
	size_t nfront;
	char *rest; /* owned: the text with blanks instead of the sweep */
};

/* Finds the sweep of a text whose positions are known. PD_EINVAL: msg begins with
 * "NAME:LINE:COLUMN: ". Release also after a failure. */
int sweep_find(struct sweep *s, const struct yamlpos *pos, const char *text, size_t n,
	       const char *name, struct pd_msg *msg) PD_MUST;
void sweep_release(struct sweep *s);

/* The parts of a point. */
struct sweep_point {
	struct buf text;     /* a scenario file */
	struct buf label;    /* "PATH=VALUE PATH=VALUE" */
	struct buf workload; /* what its workload depends on, for comparison */
	char place[256];     /* path in yamlpos of the value that was set last, for messages */
};
void sweep_point_init(struct sweep_point *p);
void sweep_point_release(struct sweep_point *p);
/* Point `i` below s->points. PD_EINVAL: a path that does not exist in a sequence or goes through a
 * scalar; the message begins as above. */
int sweep_make(const struct sweep *s, size_t i, const struct yamlpos *pos, const char *text,
	       size_t n, const char *name, struct sweep_point *out, struct pd_msg *msg) PD_MUST;

#endif
