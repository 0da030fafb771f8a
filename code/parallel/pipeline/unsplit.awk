# A schedule in CSV with its I and W made B again: third=1, those before the first pair;
# last=1, those behind it.
BEGIN { FS = "," }
{
    paired = 0
    line = ""
    split("", dropped)
    for (i = 1; i <= NF; i++) {
        paired = paired || $i ~ /^\(/
        if ($i in dropped)
            continue
        if ($i ~ /^[0-9]+I/ && (paired ? last : third)) {
            weights = $i
            sub("I", "W", weights)
            dropped[weights] = 1
            sub("I", "B", $i)
        }
        line = line (line == "" ? "" : ",") $i
    }
    print line
}
