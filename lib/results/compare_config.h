/*
 * May these runs be compared at all? Settings of the load must agree in every run; so must what
 * came out of it apart from speed: failures (within 1 point), output tokens per request (2 %),
 * input tokens (5 %), the share of cached tokens (5 points). No run may have been interrupted, or
 * say that its own client was too slow, and nothing simulated is compared with anything measured.
 */
#ifndef PD_RESULTS_COMPARE_CONFIG_H
#define PD_RESULTS_COMPARE_CONFIG_H

#include "lib/results/compare_data.h"

/* A list of names for --allow-different, "all" included. PD_EINVAL names the wrong one. Any
 * "pdctl.NAME" is taken. */
int compare_config_allow(const char *allow, struct pd_msg *msg) PD_MUST;

/* Is the word of n bytes in the comma-separated list, which may be NULL? */
bool compare_list_has(const char *list, const char *word, size_t n);

/*
 * Appends every difference to the reasons of `c`, or to its notes when `allow` (comma-separated, or
 * NULL) has its name. PD_ENOENT when there is a reason, with the flag that allows all of them in
 * msg. Softer doubts become notes.
 */
int compare_config(struct compare *c, const char *allow, struct pd_msg *msg) PD_MUST;

#endif
