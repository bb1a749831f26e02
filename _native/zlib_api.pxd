"""The part of zlib that the gRPC edge uses, as a table of function pointers; declarations only.

Filled by zlib_api.load_library. A stream belongs to one thread at a time; no function needs the GIL.

Source: zlib.h of zlib 1.2.11 and later, soname 1 (declared here by hand: no header is needed to build). There
inflateInit2 and deflateInit2 are macros, which hand zlib's version and the size of z_stream on to the functions here.
"""

cdef extern from *:
    """
    #ifndef TENSORGATE_ZLIB_TYPES
    #define TENSORGATE_ZLIB_TYPES
    typedef struct {
      const unsigned char* next_in;
      unsigned int avail_in;
      unsigned long total_in;
      unsigned char* next_out;
      unsigned int avail_out;
      unsigned long total_out;
      const char* msg;
      void* state;
      void* (*zalloc)(void*, unsigned int, unsigned int);
      void (*zfree)(void*, void*);
      void* opaque;
      int data_type;
      unsigned long adler;
      unsigned long reserved;
    } z_stream;
    #endif
    """
    # All zero before it is initialised: then zlib allocates with malloc.
    ctypedef struct z_stream:
        const unsigned char* next_in
        unsigned int avail_in
        unsigned char* next_out
        unsigned int avail_out

cdef enum:
    Z_NO_FLUSH = 0
    Z_FINISH = 4
    Z_OK = 0
    Z_STREAM_END = 1
    Z_MEM_ERROR = -4
    Z_BUF_ERROR = -5
    Z_DEFLATED = 8
    Z_DEFAULT_STRATEGY = 0
    # Window bits: the largest window, with the header and trailer of zlib's format (gRPC calls it deflate) or gzip's.
    ZLIB_WINDOW_BITS = 15
    GZIP_WINDOW_BITS = 15 + 16

cdef struct ZlibApi:
    bint is_loaded
    const char* (*version)() noexcept nogil
    int (*inflate_init)(z_stream*, int window_bits, const char* version, int stream_size) noexcept nogil
    int (*inflate)(z_stream*, int flush) noexcept nogil
    int (*inflate_end)(z_stream*) noexcept nogil
    int (*deflate_init)(
        z_stream*, int level, int method, int window_bits, int memory_level, int strategy, const char* version,
        int stream_size) noexcept nogil
    int (*deflate)(z_stream*, int flush) noexcept nogil
    int (*deflate_end)(z_stream*) noexcept nogil

cdef ZlibApi zlib
