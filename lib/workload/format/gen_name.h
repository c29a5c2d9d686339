/* A generated workload as a file name: "gen:multi-prefix,num-prompts=64,seed=7" is what `pdctl gen
 * multi-prefix --num-prompts 64 --seed 7` writes. */
#ifndef PD_WORKLOAD_FORMAT_GEN_NAME_H
#define PD_WORKLOAD_FORMAT_GEN_NAME_H

#include "lib/workload/generate.h"

/* The options of a name that begins with "gen:". PD_EINVAL: the message names the option, what was
 * found and what was expected. */
int format_gen_parse(const char *name, struct generate_options *out, struct pd_msg *msg) PD_MUST;

#endif
