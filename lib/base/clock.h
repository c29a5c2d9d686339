/* Time. Monotonic nanoseconds for every measurement and deadline; wall time for logs and dates
 * only. Thread-safe. */
#ifndef PD_BASE_CLOCK_H
#define PD_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_S  INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_US INT64_C(1000)

/* "No deadline": far enough away that sums with it do not overflow. */
#define CLOCK_NEVER (INT64_MAX / 4)

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t clock_now(void);
/* CLOCK_REALTIME in nanoseconds since 1970. */
int64_t clock_wall(void);
/* CPU time of the whole process in nanoseconds. */
int64_t clock_cpu(void);
/* Milliseconds until `deadline` for poll(2): 0 when it has passed, -1 for CLOCK_NEVER, rounded up
 * otherwise. */
int clock_poll_ms(int64_t deadline);
/* Sleeps until the absolute monotonic time; continues after signals. */
void clock_sleep_until(int64_t deadline);
/* "2026-11-21T06:15:00.123Z" (24 characters and a terminator). cap >= 25. */
void clock_rfc3339(int64_t wall_ns, char *out, size_t cap);

#endif
