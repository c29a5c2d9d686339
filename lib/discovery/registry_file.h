/*
 * Where a registry keeps its services over restarts: one SQLite table. Heartbeats are written when
 * they are asked to be, everything else at once. Not thread-safe: the registry's lock.
 */
#ifndef PD_DISCOVERY_REGISTRY_FILE_H
#define PD_DISCOVERY_REGISTRY_FILE_H

#include "lib/discovery/registry_table.h"

struct registry_file;

/* Opens or makes the file and reads its services into the table, whose array has room. PD_EINVAL:
 * it is a file of something else, which is not touched; PD_EIO, PD_ENOMEM; each with a sentence. */
int registry_file_open(struct registry_file **out, const char *path, struct registry_table *t,
		       struct pd_msg *msg) PD_MUST;
/* Accepts NULL. */
void registry_file_close(struct registry_file *f);
/* PD_EIO with a sentence. */
int registry_file_write(struct registry_file *f, const struct registry_service *s,
			struct pd_msg *msg) PD_MUST;
int registry_file_remove(struct registry_file *f, const char *name, struct pd_msg *msg) PD_MUST;
/* Status and time of the last heartbeat of all, in one transaction. */
int registry_file_heartbeats(struct registry_file *f, const struct registry_table *t,
			     struct pd_msg *msg) PD_MUST;

#endif
