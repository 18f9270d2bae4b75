/* Deceptive file names. `file_name` is that of the attachment, with overrides written as <U+202E>. */

rule Executable_With_Double_Extension
{
    meta:
        description = "a program whose name looks like a document's (invoice.pdf.exe)"
    condition:
        kind == "attachment" and
        file_name matches /\.(pdf|docx?|xlsx?|pptx?|od[tsp]|txt|rtf|csv|jpe?g|png|gif|mp[34]|avi|zip|html?)[ ._-]*\.(exe|scr|com|pif|bat|cmd|vb[es]|jse?|ws[fh]|hta|lnk|msi|ps1|jar|cpl|iso|img)$/i
}

rule Executable_With_Direction_Override
{
    meta:
        description = "a program whose name reads backwards, so that it seems to have another ending"
    condition:
        kind == "attachment" and file_name contains "<U+202" and
        file_name matches /\.(exe|scr|com|pif|bat|cmd|vb[es]|jse?|ws[fh]|hta|lnk|msi|ps1|jar|cpl)$/i
}

rule Program_Named_As_Document
{
    meta:
        description = "a program (PE or ELF) under the name of a document or picture"
    condition:
        kind == "attachment" and
        (
            (uint16(0) == 0x5A4D and filesize > 64 and uint32(uint32(0x3C)) == 0x00004550) or
            uint32(0) == 0x464C457F
        ) and
        file_name matches /\.(pdf|docx?|xlsx?|pptx?|od[tsp]|txt|rtf|csv|jpe?g|png|gif|mp[34]|html?)$/i
}
