#include "cmd/workload_opts.h"

#include <stdio.h>

struct workload_opts workload_opts;

struct opt workload_opts_rows[] = {
	{OPT_TEXT, "dataset-format", &workload_opts.format, "NAME",
	 "format of the file instead of recognising it; pdctl gen --list-formats lists them", NULL,
	 0, 0, "workload-format"},
	{OPT_CHOICE, "timestamp-unit", &workload_opts.unit, "UNIT",
	 "unit of its time stamps (default: auto, the format's; times since 1970 by their size)",
	 "auto|s|ms|us|ns", 0, 0, NULL},
	{.type = OPT_END},
};

void workload_opts_take(struct workload_options *out)
{
	out->format = workload_opts.format;
	if (workload_opts.unit && workload_unit_parse(workload_opts.unit, &out->unit))
		out->unit = WORKLOAD_UNIT_AUTO;
}

void workload_opts_say(const char *const *note, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)fprintf(stderr, "note: %s\n", note[i]);
}
