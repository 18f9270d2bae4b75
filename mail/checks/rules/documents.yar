/* Office documents, PDF and RTF that run something when they are opened. */

rule Document_With_Self_Starting_Macro
{
    meta:
        description = "an Office document whose macro starts by itself and runs programs or downloads"
    strings:
        $module = { 00 41 74 74 72 69 62 75 74 00 65 20 56 42 5F }  // "Attribut\0e VB_": every compressed VBA module
        $start1 = "AutoOpen" nocase ascii wide
        $start2 = "Auto_Open" nocase ascii wide
        $start3 = "AutoExec" nocase ascii wide
        $start4 = "Document_Open" nocase ascii wide
        $start5 = "Workbook_Open" nocase ascii wide
        $start6 = "Auto_Close" nocase ascii wide
        $act1 = "WScript.Shell" nocase ascii wide
        $act2 = "Shell.Application" nocase ascii wide
        $act3 = "URLDownloadToFile" nocase ascii wide
        $act4 = "MSXML2" nocase ascii wide
        $act5 = "WinHttpRequest" nocase ascii wide
        $act6 = "ADODB.Stream" nocase ascii wide
        $act7 = "powershell" nocase ascii wide
        $act8 = "cmd /c" nocase ascii wide
        $act9 = "cmd.exe" nocase ascii wide
    condition:
        uint32be(0) == 0xD0CF11E0 and $module and any of ($start*) and any of ($act*)
}

rule Macros_In_Macro_Free_Format
{
    meta:
        description = "an Office document with macros, named as one that can have none (.docx, .xlsx, .pptx)"
    strings:
        $types = "[Content_Types].xml"
        $macros = "/vbaProject.bin"
    condition:
        uint32be(0) == 0x504B0304 and all of them and file_name matches /\.(docx|xlsx|pptx)$/i
}

rule RTF_With_Equation_Exploit
{
    meta:
        description = "an RTF text that starts the old equation editor (CVE-2017-11882)"
    strings:
        $equation1 = "4571756174696f6e2e33" nocase  // "Equation.3"
        $equation2 = "02ce020000000000c000000000000046" nocase  // its class id
        $object = "\\objdata" nocase
        $update = "\\objupdate" nocase
    condition:
        uint32be(0) == 0x7B5C7274 and $object and $update and any of ($equation*)
}

rule PDF_That_Launches_A_Program
{
    meta:
        description = "a PDF that starts a command interpreter when it is opened"
    strings:
        $open = "/OpenAction"
        $launch = "/Launch"
        $program1 = "cmd.exe" nocase
        $program2 = "powershell" nocase
        $program3 = "mshta" nocase
    condition:
        uint32be(0) == 0x25504446 and $open and $launch and any of ($program*)
}
