-- Ends a pause. The field is removed, as in a manifest that leaves it out.
obj.spec.paused = nil
return obj
