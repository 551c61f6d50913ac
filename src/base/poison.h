// Under AddressSanitizer freed pool memory is poisoned, so that pooling never hides a use after free.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define PENSTOCK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PENSTOCK_ASAN 1
#endif
#endif

#ifdef PENSTOCK_ASAN
#include <sanitizer/asan_interface.h>
#define PENSTOCK_POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define PENSTOCK_UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define PENSTOCK_POISON(at, bytes) ((void)(at), (void)(bytes))
#define PENSTOCK_UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif
