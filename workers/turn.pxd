"""`Turn` for the compiled core: see ``connection.pxd``."""


cdef class Turn:
    cdef public object _loop
    cdef public bint _scheduled
    cdef public bint _paced
    cdef public object _pause
    cdef public Py_ssize_t number
    cdef public double _began
    cdef public object _durations
    cdef public double _longest
    cdef public list _dirty
    cdef public object _work
    cdef public object _written

    cpdef schedule(self)
    cpdef dirty(self, connection)
    cpdef _end(self)
