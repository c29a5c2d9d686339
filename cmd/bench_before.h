/* What a result file of an earlier run says. A file of its own, for documents that are read and
 * documents that are written have enumerators of the same names. */
#ifndef PD_CMD_BENCH_BEFORE_H
#define PD_CMD_BENCH_BEFORE_H

/* The cached share in the last document of the file when it is of this data set; else NaN. */
double bench_share_before(const char *path, const char *dataset_hash);

#endif
