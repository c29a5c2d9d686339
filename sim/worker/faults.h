/*
 * Injected faults: which are in force, which requests they hit, and the page that changes them at
 * run time. Thread-safe.
 */
#ifndef PD_SIM_WORKER_FAULTS_H
#define PD_SIM_WORKER_FAULTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct http_conn;
struct http_request;

/* Counts are of generation requests since the faults were set. */
struct worker_faults {
	double fail_rate;	   /* share of requests answered with fail_status, 0..1 */
	int64_t fail_first;	   /* the first N requests fail */
	int64_t fail_status;	   /* 400..599 */
	double fail_retry_after_s; /* adds Retry-After to the failures; < 0: no header */
	int64_t crash_after;	   /* request N + 1 ends the process; < 0: off */
	int64_t stall_after;	   /* after N output tokens nothing more is sent; < 0: off */
	double stall_s;		   /* duration of a stall; 0: until the client disconnects */
	int64_t close_after;	   /* after N output tokens the connection is cut; < 0: off */
	double delay_s;		   /* every generation request is held first */
	bool unhealthy;		   /* /health answers 503 */
};

struct fault_box {
	pthread_mutex_t lock;
	struct worker_faults now;
	uint64_t seen, rng; /* requests since the faults were set; random state */
};

enum fault_action { FAULT_NONE, FAULT_FAIL, FAULT_CRASH };

void faults_init(struct fault_box *b, const struct worker_faults *f, uint64_t seed);
void faults_release(struct fault_box *b);
struct worker_faults faults_now(struct fault_box *b);
/* Counts the request and decides what happens to it; *f receives the faults in force. */
enum fault_action faults_next(struct fault_box *b, struct worker_faults *f);
/* GET and POST /pdctl/faults */
void faults_serve(struct fault_box *b, struct http_conn *c, const struct http_request *r);

#endif
