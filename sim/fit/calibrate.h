/*
 * A calibration from file to report: read, fit a part, predict the rest, say how good that was and
 * what the data cannot tell.
 */
#ifndef PD_SIM_FIT_CALIBRATE_H
#define PD_SIM_FIT_CALIBRATE_H

#include "sim/fit/fit.h"
#include "sim/fit/measured.h"

enum { CAL_TTFT, CAL_TPOT, CAL_E2E, CAL_FIGURES };
enum { CAL_P50, CAL_P90, CAL_P95, CAL_P99, CAL_PERCENTILES };

extern const char *const calibrate_figures[CAL_FIGURES]; /* "ttft", "tpot", "e2e" */

/* How one figure was predicted; NaN without a sample. */
struct calibrate_error {
	size_t n;
	double real_mean, sim_mean; /* ms */
	double real[CAL_PERCENTILES], sim[CAL_PERCENTILES];
	double mape, pearson_r; /* MAPE as a fraction */
};

struct calibration {
	struct measured m;
	size_t nfit;
	bool given; /* the costs were not fitted but given */
	bool has_floors;
	struct stepcost floor; /* of the data sheet */
	struct fit_result fit;
	struct profile profile;
	struct calibrate_error part[2][CAL_FIGURES]; /* fitted part, rest */
};

/* fit_first: requests that are fitted; 0: the first third. costs: not NULL: nothing is fitted, all
 * requests are predicted with these. PD_EINVAL names the file. */
int calibrate_run(struct calibration *c, const char *path, size_t fit_first,
		  const struct profile *given, struct pd_msg *msg) PD_MUST;
void calibrate_release(struct calibration *c);

/* The costs that data sheets suggest for the engine of this run; PD_ENOENT: not known. */
int calibrate_prior(const char *path, struct profile *out, struct pd_msg *msg) PD_MUST;

#endif
