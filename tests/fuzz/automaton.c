/*
 * The automaton of llhttp, compiled for oracle.c from the source of Debian's package node-llhttp;
 * nothing without it. Generated code: our warnings are not for it.
 */
#if __has_include("/usr/share/llhttp/llhttp.c")
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wpointer-arith"
#pragma GCC diagnostic ignored "-Wframe-larger-than="
#include "/usr/share/llhttp/llhttp.c"
#else
typedef int nothing_to_test_against;
#endif
