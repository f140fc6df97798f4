"""`Connection` for the compiled core: its attributes, in C types, and those of its methods that C calls without Python.

``connection.py`` says what they are.
"""

from picows cimport picows

# What is compared with each frame.
cdef int _TEXT
cdef int _CONTINUATION
cdef int _BINARY
cdef int _CLOSE
cdef int _PING


cdef class Connection(picows.WSListener):
    cdef public object address
    cdef public object label
    cdef public double last_heard
    cdef public object session
    cdef public object unanswered
    cdef public Py_ssize_t allowance
    cdef public object meter
    cdef public double held_until
    cdef public object kept
    cdef public object _host
    cdef public object _transport
    cdef public object _stream
    cdef public int descriptor
    cdef public object fragments
    cdef public Py_ssize_t _turn
    cdef public Py_ssize_t _controls
    cdef public double _controls_since
    cdef public list _frames
    cdef public Py_ssize_t _frames_size
    cdef public bint _dirty
    cdef public object _linger_until
    cdef public object backlog

    cpdef send(self, bytes frame)
    cpdef flush(self, double now)
    cpdef _write_frames(self)
    cpdef on_ws_connected(self, picows.WSTransport transport)
    cpdef on_ws_frame(self, picows.WSTransport transport, picows.WSFrame frame)
    cpdef on_ws_disconnected(self, picows.WSTransport transport)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cpdef _receive(self, bytes payload, double now)
