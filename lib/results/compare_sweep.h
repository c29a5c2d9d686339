/*
 * A side whose runs were made at several settings of the load (a sweep over rates or concurrency,
 * in one file or many) is compared setting by setting: each setting becomes a comparison of its
 * own.
 */
#ifndef PD_RESULTS_COMPARE_SWEEP_H
#define PD_RESULTS_COMPARE_SWEEP_H

#include "lib/results/compare_data.h"

/*
 * Splits `all`, whose runs move into *part (an owned array of *n, at most max, to be released one
 * by one and freed); all is empty then, also after an error. Settings keep the order of the base.
 * No sweep: one part with an empty `setting`.
 *
 * A setting that a side lacks is a reason not to compare (of part 0), or only a note when `allow`
 * has "settings" or "all": then settings that all sides have are compared, or, when no side shares
 * any, the first with the first and so on. PD_ETOOBIG with a message: too many settings.
 */
int compare_split(struct compare *all, const char *allow, size_t max, struct compare **part,
		  size_t *n, struct pd_msg *msg) PD_MUST;

#endif
