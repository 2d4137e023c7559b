# A recording stand-in for Vivado: tclsh stub.tcl SCRIPT ANSWERS RECORD [ARGUMENT...]
#
# Every command that Tcl does not know is written to RECORD, one Tcl list per line. ANSWERS is a Tcl list of
# {pattern of the command} {answer}; a command that no pattern matches answers with its own words in angle brackets.
# A pattern may begin with "make ": then the answer names files that come into being.
set record [open [lindex $argv 2] w]
set answers [lindex $argv 1]
set script [lindex $argv 0]
set argv [lrange $argv 3 end]
set argc [llength $argv]

proc unknown {args} {
    global record answers
    puts $record $args
    foreach {pattern answer} $answers {
        if {[string match "make *" $pattern]} {
            if {[string match [string range $pattern 5 end] $args]} {
                foreach path $answer {
                    file mkdir [file dirname $path]
                    close [open $path w]
                }
            }
        } elseif {[string match $pattern $args]} {
            return $answer
        }
    }
    return "<[join $args _]>"
}
set failed [catch {source $script} message]
close $record
if {$failed} {
    puts stderr $message
    exit 1
}
