/* One table from the end of a name to its meaning: the first line that fits wins. */
#include <stdlib.h>
#include <string.h>

#include "lib/results/metric_name.h"

const char *const metric_infinilm[] = {
	"mean_ttft_ms",	      "median_ttft_ms",
	"p99_ttft_ms",	      "mean_tpot_ms",
	"median_tpot_ms",     "p99_tpot_ms",
	"output_throughput",  "total_token_throughput",
	"request_throughput", NULL,
};

struct meaning {
	const char *ending;
	enum metric_direction direction;
	const char *unit;
};

static const struct meaning meanings[] = {
	{"_ms", METRIC_LOWER, "ms"},
	{"failed", METRIC_LOWER, ""},
	{"failures", METRIC_LOWER, ""},
	{"errors", METRIC_LOWER, ""},
	{"mistakes", METRIC_LOWER, ""},
	{"request_throughput", METRIC_HIGHER, "req/s"},
	{"request_goodput", METRIC_HIGHER, "req/s"},
	{"sequence_throughput", METRIC_HIGHER, "seq/s"},
	{"throughput", METRIC_HIGHER, "tok/s"},
	{"goodput", METRIC_HIGHER, ""},
	{"completed", METRIC_HIGHER, ""},
	{"hit_rate", METRIC_HIGHER, ""},
	{"consistency", METRIC_HIGHER, ""},
	{"acceptance_rate", METRIC_HIGHER, ""},
	{"acceptance_length", METRIC_HIGHER, ""},
	{"tokens_per_s", METRIC_HIGHER, "chunk/s"},
	{"duration", METRIC_NEUTRAL, "s"},
};

static bool ends_with(const char *s, const char *ending)
{
	size_t n = strlen(s), m = strlen(ending);

	return n >= m && strcmp(s + n - m, ending) == 0;
}

static const struct meaning *meaning_of(const char *name)
{
	static const struct meaning none = {"", METRIC_NEUTRAL, ""};

	for (unsigned i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (ends_with(name, meanings[i].ending))
			return &meanings[i];
	return &none;
}

enum metric_direction metric_direction(const char *name)
{
	return meaning_of(name)->direction;
}

const char *metric_unit(const char *name)
{
	return meaning_of(name)->unit;
}

bool metric_nested(const char *name)
{
	if (name[0] == 'p' && name[1] >= '0' && name[1] <= '9')
		name += 1 + strspn(name + 1, "0123456789.");
	return strchr(name, '.') != NULL;
}

bool metric_default(const char *name)
{
	return metric_direction(name) != METRIC_NEUTRAL && !metric_nested(name) &&
	       strncmp(name, "std_", 4) != 0 && strncmp(name, "p50_", 4) != 0 &&
	       strncmp(name, "max_", 4) != 0;
}

bool metric_is_itl(const char *name)
{
	return ends_with(name, "_itl_ms") || strcmp(name, "itls") == 0;
}

static bool statistic(const char *name, double *quantile, const char **rest)
{
	char *end;

	if (strncmp(name, "mean_", 5) == 0) {
		*quantile = -1;
		*rest = name + 5;
		return true;
	}
	if (strncmp(name, "median_", 7) == 0) {
		*quantile = 0.5;
		*rest = name + 7;
		return true;
	}
	if (name[0] != 'p' || name[1] < '0' || name[1] > '9')
		return false;
	*quantile = strtod(name + 1, &end) / 100;
	*rest = end + 1;
	return *end == '_' && *quantile <= 1;
}

bool metric_split(const char *name, const char **base, unsigned *n, double *quantile)
{
	size_t len;

	if (!statistic(name, quantile, base) || !ends_with(*base, "_ms"))
		return false;
	len = strlen(*base) - 3;
	*n = (unsigned)len;
	return len > 0;
}
