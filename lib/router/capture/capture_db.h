/*
 * The SQLite file of a capture: opened or created, checked, and written in transactions. The tables
 * are in lib/workload/capture_schema.h. Owner thread: the writer.
 */
#ifndef PD_ROUTER_CAPTURE_DB_H
#define PD_ROUTER_CAPTURE_DB_H

#include "lib/router/capture/capture_record.h"
#include "lib/router/fleet/fleet.h"

struct capture_db;

int capture_db_open(struct capture_db **out, const struct capture_config *c,
		    struct pd_msg *msg) PD_MUST;
void capture_db_close(struct capture_db *db);
/* Before the first batch. */
void capture_db_describe(struct capture_db *db, const struct router_config *rc);
/* One transaction: begin, puts, commit. After a failure of any of them: capture_db_cancel, and the
 * text of the failure is in msg. */
int capture_db_begin(struct capture_db *db, struct pd_msg *msg) PD_MUST;
int capture_db_fleet(struct capture_db *db, const struct fleet *f, int64_t at,
		     struct pd_msg *msg) PD_MUST;
int capture_db_available(struct capture_db *db, const struct fleet *f, int64_t at, int role,
			 size_t position, bool available, struct pd_msg *msg) PD_MUST;
int capture_db_decision(struct capture_db *db, const struct capture_decision *d,
			struct pd_msg *msg) PD_MUST;
int capture_db_release(struct capture_db *db, const struct capture_release *r,
		       struct pd_msg *msg) PD_MUST;
int capture_db_request(struct capture_db *db, const struct capture_request *r,
		       struct pd_msg *msg) PD_MUST;
int capture_db_losses(struct capture_db *db, const struct capture_losses *l,
		      struct pd_msg *msg) PD_MUST;
int capture_db_ended(struct capture_db *db, struct pd_msg *msg) PD_MUST;
int capture_db_commit(struct capture_db *db, struct pd_msg *msg) PD_MUST;
void capture_db_cancel(struct capture_db *db);

#endif
