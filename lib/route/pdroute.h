/*
 * The public interface of libpdroute: everything that decides which worker a request goes to,
 * without I/O, clocks or threads.
 *
 *   #include <pdroute.h>
 *   cc $(pkg-config --cflags pdroute) prog.c $(pkg-config --libs pdroute)
 *
 * Build a pool of named workers (pool.h), find a request's session key (key.h, scan.h), decide
 * (decide.h), release when the request has ended; edit.h and the headers of lib/pd change request
 * bodies as prefill/decode connectors need it.
 */
#ifndef PDROUTE_H
#define PDROUTE_H

#include "lib/base/err.h"
#include "lib/base/buf.h"
#include "lib/base/rng.h"
#include "lib/base/span.h"
#include "lib/json/edit.h"
#include "lib/json/scan.h"
#include "lib/route/decide.h"
#include "lib/route/hash.h"
#include "lib/route/key.h"
#include "lib/route/pool.h"

#endif
